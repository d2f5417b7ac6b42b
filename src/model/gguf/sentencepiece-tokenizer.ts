import type { MetadataFields } from "./fields.ts";
import type { TokenizerParts } from "./tokenizer-json.ts";
import { TOKEN_TYPE, type Vocabulary } from "./vocabulary.ts";

/** SentencePiece writes a space as U+2581. */
const SPACE = "▁";

/** `tokenizer.ggml.model` "llama": SentencePiece BPE. The file has scores; merges are rebuilt from them. */
export function sentencePieceTokenizer(
  fields: MetadataFields,
  vocabulary: Vocabulary,
  architecture: string,
): TokenizerParts {
  const gemma = architecture === "gemma3";
  const tokens = gemma ? respellSpaces(vocabulary.tokens) : vocabulary.tokens;
  const prefix = fields.boolean("tokenizer.ggml.add_space_prefix") ?? !gemma;
  const unknown = vocabulary.unknown ?? vocabulary.types.indexOf(TOKEN_TYPE.unknown);
  const spaces = { type: "Replace", pattern: { String: " " }, content: SPACE };
  const joined = [
    { type: "Replace", pattern: { String: SPACE }, content: " " },
    { type: "ByteFallback" },
    { type: "Fuse" },
  ];
  // Gemma's scores do not follow its merge order; the order of its tokens does.
  const score = gemma || !vocabulary.scores ? (id: number) => -id : (id: number) => vocabulary.scores?.[id] ?? 0;
  return {
    tokens,
    merges: mergesFromScores(tokens, vocabulary.types, score),
    normalizer: prefix ? { type: "Sequence", normalizers: [{ type: "Prepend", prepend: SPACE }, spaces] } : spaces,
    preTokenizer: null,
    decoder: {
      type: "Sequence",
      decoders: prefix ? [...joined, { type: "Strip", content: " ", start: 1, stop: 0 }] : joined,
    },
    model: { unk_token: tokens[unknown] ?? null, fuse_unk: true, byte_fallback: true, ignore_merges: false },
    addBosByDefault: true,
  };
}

/** Gemma's runs of spaces are stored as spaces, while text reaches the merges with U+2581. */
function respellSpaces(tokens: readonly string[]): string[] {
  return tokens.map((token) => (/^ {2,}$/.test(token) ? SPACE.repeat(token.length) : token));
}

interface Merge {
  left: string;
  right: string;
  score: number;
  /** Lengths in characters. */
  leftLength: number;
  rightLength: number;
}

/**
 * SentencePiece joins the pair whose result has the best score; merges say the same as an order: every way to cut a
 * token into two tokens, best score first, then (as Transformers' converter) longer left part, longer right part, and
 * smaller ids. Control, unknown and byte tokens are never made of text.
 */
export function mergesFromScores(
  tokens: readonly string[],
  types: readonly number[],
  score: (id: number) => number,
): [string, string][] {
  const never = new Set<number>([TOKEN_TYPE.control, TOKEN_TYPE.unknown, TOKEN_TYPE.byte]);
  const ids = new Map<string, number>();
  for (const [id, token] of tokens.entries()) if (!never.has(types[id] ?? TOKEN_TYPE.normal)) ids.set(token, id);
  const merges: Merge[] = [];
  for (const [token, id] of ids) merges.push(...cuts(token, ids, score(id)));
  merges.sort((a, b) => b.score - a.score || b.leftLength - a.leftLength || b.rightLength - a.rightLength);
  return merges.map(({ left, right }) => [left, right]);
}

function cuts(token: string, ids: ReadonlyMap<string, number>, score: number): Merge[] {
  const length = [...token].length;
  const found: (Merge & { leftId: number; rightId: number })[] = [];
  let at = 0;
  let leftLength = 0;
  for (const character of token) {
    at += character.length;
    leftLength++;
    if (at === token.length) break;
    const left = token.slice(0, at);
    const right = token.slice(at);
    const leftId = ids.get(left);
    const rightId = ids.get(right);
    if (leftId === undefined || rightId === undefined) continue;
    found.push({ left, right, score, leftLength, rightLength: length - leftLength, leftId, rightId });
  }
  return found.sort((a, b) => a.leftId - b.leftId || a.rightId - b.rightId);
}
