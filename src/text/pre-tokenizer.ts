import { toByteChars } from "./byte-level.ts";
import { compileRegex, patternOf } from "./regular-expression.ts";
import { type Component, unsupported } from "./tokenizer-file.ts";

/** SentencePiece's mark for a space. */
export const METASPACE = "▁";

/**
 * Cuts a stretch of text into the words that BPE merges within. In a byte-level tokenizer words are written in the byte
 * alphabet. `first`: the stretch begins the whole text (Metaspace may add its space only there).
 */
export interface PreTokenizer {
  split(text: string, first: boolean): string[];
  byteLevel: boolean;
  /** Words are exactly the text cut up: nothing is added, removed or replaced. */
  lossless: boolean;
}

type Step = (word: string, first: boolean) => string[];

/** GPT-2's pattern, the default of the ByteLevel component. */
const GPT2_PATTERN = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const PUNCTUATION = /[\p{P}\u0021-\u002F\u003A-\u0040\u005B-\u0060\u007B-\u007E]/gu;

/** Semantics of the Rust tokenizers; only the translation of their regular expressions comes from the library. */
export function createPreTokenizer(components: readonly Component[]): PreTokenizer {
  const steps = components.map(toStep);
  return {
    split(text, first) {
      let words = [text];
      for (const step of steps) words = words.flatMap((word, i) => step(word, first && i === 0));
      return words;
    },
    byteLevel: components.some(({ type }) => type === "ByteLevel"),
    lossless: components.every(isLossless),
  };
}

function isLossless(config: Component): boolean {
  if (config.type === "ByteLevel") return config.add_prefix_space !== true;
  if (config.type === "Split" || config.type === "Punctuation") return behaviorOf(config) !== "removed";
  return config.type === "Digits";
}

function toStep(config: Component): Step {
  switch (config.type) {
    case "ByteLevel":
      return byteLevel(config);
    case "Metaspace":
      return metaspace(config);
    case "Split":
      return splitter(patternOf(config), behaviorOf(config), config.invert === true);
    case "Punctuation":
      return splitter(PUNCTUATION, behaviorOf(config), false);
    case "Digits":
      return splitter(/\p{N}/gu, config.individual_digits === true ? "isolated" : "contiguous", false);
    case "Whitespace":
      return splitter(compileRegex("\\w+|[^\\w\\s]+"), "removed", true);
    case "WhitespaceSplit":
      return splitter(compileRegex("\\s+"), "removed", false);
    default:
      throw unsupported(`the pre-tokenizer ${config.type}`);
  }
}

function byteLevel(config: Component): Step {
  const split: Step =
    config.use_regex === false ? (word) => [word] : splitter(compileRegex(GPT2_PATTERN), "isolated", false);
  return (word, first) => {
    const text = config.add_prefix_space === true && !word.startsWith(" ") ? ` ${word}` : word;
    return split(text, first).map(toByteChars);
  };
}

/** Whether a Metaspace component (pre-tokenizer or decoder) puts a space in front: older files say `add_prefix_space`. */
export function prependScheme(config: Component): "always" | "first" | "never" {
  if ((config.replacement ?? METASPACE) !== METASPACE) throw unsupported("a Metaspace with another mark than ▁");
  const scheme = config.prepend_scheme ?? (config.add_prefix_space === false ? "never" : "always");
  if (scheme === "always" || scheme === "first" || scheme === "never") return scheme;
  throw unsupported(`the Metaspace scheme ${String(scheme)}`);
}

function metaspace(config: Component): Step {
  const scheme = prependScheme(config);
  const byWord = splitter(/▁/gu, "mergedwithnext", false);
  return (word, first) => {
    const marked = word.replaceAll(" ", METASPACE);
    const prepend = !marked.startsWith(METASPACE) && (scheme === "always" || (scheme === "first" && first));
    const text = prepend ? METASPACE + marked : marked;
    return config.split === false ? [text] : byWord(text, first);
  };
}

/** `MergedWithPrevious`, `merged_with_previous` → `mergedwithprevious` */
function behaviorOf(config: Component): string {
  return String(config.behavior ?? "Isolated")
    .toLowerCase()
    .replaceAll("_", "");
}

/** Cuts at the matches of `pattern` (at everything else with `invert`); `behavior` says what becomes of the delimiters. */
function splitter(pattern: RegExp, behavior: string, invert: boolean): Step {
  if (!["isolated", "removed", "contiguous", "mergedwithprevious", "mergedwithnext"].includes(behavior)) {
    throw unsupported(`the Split behavior ${behavior}`);
  }
  return (word) => {
    const pieces = cut(word, pattern, invert);
    if (behavior === "isolated") return pieces.map(({ text }) => text);
    if (behavior === "removed") return pieces.filter(({ delimiter }) => !delimiter).map(({ text }) => text);
    return join(pieces, behavior);
  };
}

interface Piece {
  text: string;
  delimiter: boolean;
}

function cut(word: string, pattern: RegExp, invert: boolean): Piece[] {
  const pieces: Piece[] = [];
  let end = 0;
  for (const match of word.matchAll(pattern)) {
    if (match[0].length === 0) continue;
    if (match.index > end) pieces.push({ text: word.slice(end, match.index), delimiter: invert });
    pieces.push({ text: match[0], delimiter: !invert });
    end = match.index + match[0].length;
  }
  if (end < word.length) pieces.push({ text: word.slice(end), delimiter: invert });
  return pieces;
}

function join(pieces: readonly Piece[], behavior: string): string[] {
  const words: string[] = [];
  let previous: Piece | undefined;
  for (const piece of pieces) {
    const append =
      previous !== undefined &&
      (behavior === "contiguous"
        ? previous.delimiter === piece.delimiter
        : behavior === "mergedwithprevious"
          ? piece.delimiter && !previous.delimiter
          : previous.delimiter && !piece.delimiter);
    if (append) words[words.length - 1] += piece.text;
    else words.push(piece.text);
    previous = piece;
  }
  return words;
}
