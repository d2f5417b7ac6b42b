import type { Segment } from "./added-tokens.ts";
import { type Component, unsupported } from "./tokenizer-file.ts";

/** What the post-processor puts around a single text: `{ before: [<s>], after: [] }`. */
export interface SpecialsAround {
  before: Segment[];
  after: Segment[];
}

/** Throws `invalid_tokenizer` for a component we do not have, or one that names a token which does not exist. */
export function specialsAround(
  components: readonly Component[],
  idOf: (content: string) => number | undefined,
): SpecialsAround {
  const token = (content: unknown): Segment => {
    const id = typeof content === "string" ? idOf(content) : undefined;
    if (id === undefined) throw unsupported(`a post-processor with the unknown token ${String(content).slice(0, 80)}`);
    return { kind: "token", id, text: content as string };
  };
  const around: SpecialsAround = { before: [], after: [] };
  for (const config of components) {
    if (config.type === "ByteLevel") continue;
    if (config.type === "TemplateProcessing") {
      const { before, after } = templateOf(config);
      around.before.unshift(...before.map(token));
      around.after.push(...after.map(token));
    } else if (config.type === "BertProcessing" || config.type === "RobertaProcessing") {
      around.before.unshift(token((config.cls as unknown[] | undefined)?.[0]));
      around.after.push(token((config.sep as unknown[] | undefined)?.[0]));
    } else throw unsupported(`the post-processor ${config.type}`);
  }
  return around;
}

/** `single` lists special tokens around one `{"Sequence": …}`. */
function templateOf(config: Component): { before: unknown[]; after: unknown[] } {
  const items = Array.isArray(config.single) ? (config.single as unknown[]) : [];
  const names = items.map((item) => {
    const { SpecialToken: special } = (item ?? {}) as { SpecialToken?: { id?: unknown } };
    return special ? { id: special.id } : undefined;
  });
  const text = names.indexOf(undefined);
  if (text < 0 || names.lastIndexOf(undefined) !== text) throw unsupported("a post-processor without exactly one text");
  return {
    before: names.slice(0, text).map((name) => name?.id),
    after: names.slice(text + 1).map((name) => name?.id),
  };
}
