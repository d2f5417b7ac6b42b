import { patternOf } from "./regular-expression.ts";
import { type Component, unsupported } from "./tokenizer-file.ts";

/**
 * The tokenizer's normaliser in two halves. The character-wise half (Unicode forms, lower case) is applied to every
 * field by itself before fields are joined: a field that begins with a combining mark must not swallow the end of the
 * tag before it. The structural half (a space in front, `▁` for a space) stays with the tokenizer; offsets refer to
 * the text between the two.
 */
export interface Normalizer {
  /** Unicode half; lone surrogates become U+FFFD. */
  field(text: string): string;
  /** Structural half, of one stretch between added tokens. */
  stretch(text: string): string;
  /** `stretch` is the identity. */
  plain: boolean;
  /** The Unicode form, when it may be applied to a template's source as well (ASCII syntax survives it). */
  sourceForm: "NFC" | "NFD" | null;
}

type Step = (text: string) => string;

const CHARACTER_WISE: Record<string, Step> = {
  NFC: (text) => text.normalize("NFC"),
  NFD: (text) => text.normalize("NFD"),
  NFKC: (text) => text.normalize("NFKC"),
  NFKD: (text) => text.normalize("NFKD"),
  // By character, as the Rust tokenizers do it: without the rule for a final sigma.
  Lowercase: (text) => Array.from(text, (char) => char.toLowerCase()).join(""),
  StripAccents: (text) => text.replace(/\p{M}/gu, ""),
};
/** A UTF-16 string cannot be encoded while it has lone surrogates; TextEncoder would turn them into the same character. */
export const wellFormed = (text: string): string => text.replace(/\p{Surrogate}/gu, "\ufffd");

/** Throws `invalid_tokenizer` for a normaliser we do not have. */
export function createNormalizer(components: readonly Component[]): Normalizer {
  const steps: Step[] = [];
  const structural: Step[] = [];
  for (const config of components) {
    const step = CHARACTER_WISE[config.type];
    if (step) steps.push(step);
    else structural.push(structuralStep(config));
  }
  const form = components.find(({ type }) => type === "NFC" || type === "NFD");
  return {
    field: (text) => steps.reduce((value, step) => step(value), wellFormed(text)),
    stretch: (text) => structural.reduce((value, step) => step(value), text),
    plain: structural.length === 0,
    sourceForm: (form?.type as "NFC" | "NFD" | undefined) ?? null,
  };
}

function structuralStep(config: Component): Step {
  if (config.type === "Prepend") {
    const prefix = String(config.prepend ?? "");
    return (text) => (text === "" ? text : prefix + text);
  }
  if (config.type === "Replace") {
    const pattern = patternOf(config);
    const content = String(config.content ?? "");
    // A function: `$` in a replacement string would refer to the match.
    return (text) => text.replace(pattern, () => content);
  }
  if (config.type === "Strip") {
    return (text) => {
      const left = config.strip_left === false ? text : text.trimStart();
      return config.strip_right === false ? left : left.trimEnd();
    };
  }
  throw unsupported(`the normalizer ${config.type}`);
}
