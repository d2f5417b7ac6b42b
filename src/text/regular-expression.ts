import * as library from "@huggingface/tokenizers";
import { type Component, unsupported } from "./tokenizer-file.ts";

/** The part of the library used here; its type declarations do not resolve in an ES module. */
const { SplitPreTokenizer } = library as unknown as {
  SplitPreTokenizer: new (config: object) => { pattern: RegExp | null };
};

/** An Oniguruma expression (what tokenizer.json holds) as a JavaScript one, global and Unicode. Throws `invalid_tokenizer`. */
export function compileRegex(regex: string): RegExp {
  try {
    const { pattern } = new SplitPreTokenizer({ pattern: { Regex: regex }, behavior: "Isolated", invert: false });
    if (pattern) return pattern;
  } catch {
    // Named below: the library's message means nothing to the reader.
  }
  throw unsupported(`the regular expression ${JSON.stringify(regex.slice(0, 200))}`);
}

/** The `pattern` of a component: `{ "Regex": … }` or `{ "String": … }`. */
export function patternOf(config: Component): RegExp {
  const pattern = config.pattern as { Regex?: unknown; String?: unknown } | null | undefined;
  if (typeof pattern?.Regex === "string") return compileRegex(pattern.Regex);
  if (typeof pattern?.String === "string" && pattern.String !== "") {
    return new RegExp(pattern.String.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&"), "gu");
  }
  throw unsupported(`a ${config.type} without a pattern`);
}
