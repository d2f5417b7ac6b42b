import { type AddedTokenMatcher, createMatcher, type Segment } from "./added-tokens.ts";
import { alignBytes } from "./align.ts";
import { type Bpe, createBpe, splitsAtMetaspace } from "./bpe.ts";
import { fromByteChars } from "./byte-level.ts";
import { createNormalizer, type Normalizer } from "./normalizer.ts";
import { specialsAround } from "./post-processor.ts";
import { createPreTokenizer, METASPACE, type PreTokenizer } from "./pre-tokenizer.ts";
import { buildTokenBytes, decoderKind, type TokenBytes } from "./token-bytes.ts";
import type { AddedToken, TokenizerSpec } from "./tokenizer-file.ts";

/**
 * Text to ids. Whoever calls decides what is a control token by passing segments: a text segment never yields a special
 * token, whatever it says.
 */
export interface Tokenizer {
  readonly hash: string;
  readonly addedTokens: readonly AddedToken[];
  readonly bytes: TokenBytes;
  readonly stripsSpace: boolean;
  readonly normalizer: Normalizer;
  /** Special tokens that the post-processor puts before and after a text. */
  readonly before: readonly Segment[];
  readonly after: readonly Segment[];
  /** A raw text cut at every added token, as the reference tokenizers do. */
  splitSpecial(text: string): Segment[];
  /**
   * Ids of segments whose texts are normalised already (`normalizer.field`).
   * @param offset segments before it are not part of the text proper (a BOS from the post-processor)
   */
  encode(segments: readonly Segment[], plain: PlainTokens, offset?: number): { ids: Int32Array; ends: Int32Array };
  /** Matchers for ordinary added tokens, without those in `except`. */
  plainTokens(except: ReadonlySet<string>): PlainTokens;
}

/** The added tokens that match within plain text: in the raw text, and in the structurally normalised text. */
export interface PlainTokens {
  raw: AddedTokenMatcher;
  normalized: AddedTokenMatcher;
}

/** Throws `invalid_tokenizer` for components we do not have. */
export function createTokenizer(spec: TokenizerSpec): Tokenizer {
  const normalizer = createNormalizer(spec.normalizers);
  const pre = createPreTokenizer(spec.preTokenizers);
  const special = new Set(spec.addedTokens.filter((token) => token.special).map((token) => token.content));
  const bpe = createBpe(spec.model, { byteLevel: pre.byteLevel, banned: special });
  const idOf = (content: string): number | undefined =>
    spec.addedTokens.find((token) => token.content === content)?.id ?? spec.model.vocab.get(content);
  const { before, after } = specialsAround(spec.postProcessors, idOf);
  const stretch = createStretchEncoder({
    bpe,
    pre,
    normalizer,
    byWord: !pre.byteLevel && splitsAtMetaspace(spec.model),
  });
  const matchers = (tokens: readonly AddedToken[]): PlainTokens => ({
    raw: createMatcher(tokens.filter((token) => !token.normalized)),
    normalized: createMatcher(
      tokens.filter((token) => token.normalized),
      (token) => normalizer.stretch(token.content),
    ),
  });
  // Special tokens are looked for in the raw text even where their flag says "normalized": a lone exception in old files.
  const everything = createMatcher(spec.addedTokens.filter((token) => !token.normalized || token.special));
  return {
    hash: spec.hash,
    addedTokens: spec.addedTokens,
    bytes: buildTokenBytes(spec),
    stripsSpace: decoderKind(spec).stripsSpace,
    normalizer,
    before,
    after,
    splitSpecial: everything.split,
    plainTokens: (except) => matchers(spec.addedTokens.filter((token) => !token.special && !except.has(token.content))),
    encode(segments, plain, offset = 0) {
      const out = createOutput();
      segments.forEach((segment, i) => {
        const bytes = Buffer.byteLength(segment.text);
        if (segment.kind === "token") out.token(segment.id, bytes);
        else encodeText(segment.text, i === offset, plain, stretch, out);
      });
      return out.finish();
    },
  };
}

/** One text segment: ordinary added tokens of the raw text are cut out, then the stretches between them are encoded. */
function encodeText(text: string, first: boolean, plain: PlainTokens, stretch: StretchEncoder, out: Output): void {
  plain.raw.split(text).forEach((part, i) => {
    if (part.kind === "token") out.token(part.id, Buffer.byteLength(part.text));
    else stretch(part.text, first && i === 0, plain.normalized, out);
  });
}

type StretchEncoder = (text: string, first: boolean, normalized: AddedTokenMatcher, out: Output) => void;

interface StretchParts {
  bpe: Bpe;
  pre: PreTokenizer;
  normalizer: Normalizer;
  /** Words may be cut at `▁` (see `splitsAtMetaspace`). */
  byWord: boolean;
}

function createStretchEncoder({ bpe, pre, normalizer, byWord }: StretchParts): StretchEncoder {
  const wordsOf = (text: string, first: boolean): string[] => {
    const words = pre.split(text, first);
    return byWord ? words.flatMap((word) => word.match(/▁*[^▁]+|▁+/g) ?? []) : words;
  };
  const sourceOf = (word: string): Uint8Array =>
    pre.byteLevel ? fromByteChars(word) : Buffer.from(word.replaceAll(METASPACE, " "));

  return (text, first, normalized, out) => {
    const ids: number[] = [];
    /** End of each token in the source. */
    const ends: number[] = [];
    const sources: Uint8Array[] = [];
    let units = 0;
    normalized.split(normalizer.stretch(text)).forEach((part, i) => {
      if (part.kind === "token") {
        const source = Buffer.from(part.text.replaceAll(METASPACE, " "));
        sources.push(source);
        units += source.length;
        ids.push(part.id);
        ends.push(units);
        return;
      }
      for (const piece of wordsOf(part.text, first && i === 0)) {
        const word = bpe.encode(piece);
        for (let k = 0; k < word.ids.length; k++) {
          ids.push(word.ids[k] as number);
          ends.push(units + (word.ends[k] as number));
        }
        sources.push(sourceOf(piece));
        units += word.units;
      }
    });
    const bytes = Buffer.byteLength(text);
    if (pre.lossless && normalizer.plain && normalized.isEmpty) return out.stretch(ids, ends, bytes);
    const positions = alignBytes(Buffer.concat(sources), Buffer.from(text));
    out.stretch(
      ids,
      ends.map((end) => positions[end] ?? bytes),
      bytes,
    );
  };
}

/** Collects ids and their ends in the bytes of the whole text. */
interface Output {
  token(id: number, bytes: number): void;
  /** `ends` count from the start of the stretch; bytes that no token accounts for go to its last one. */
  stretch(ids: readonly number[], ends: readonly number[], bytes: number): void;
  finish(): { ids: Int32Array; ends: Int32Array };
}

function createOutput(): Output {
  const ids: number[] = [];
  const ends: number[] = [];
  let total = 0;
  return {
    token(id, bytes) {
      total += bytes;
      ids.push(id);
      ends.push(total);
    },
    stretch(newIds, newEnds, bytes) {
      for (let i = 0; i < newIds.length; i++) {
        ids.push(newIds[i] as number);
        ends.push(total + (newEnds[i] as number));
      }
      total += bytes;
      if (newIds.length > 0) ends[ends.length - 1] = total;
    },
    finish() {
      if (ends.length > 0) ends[ends.length - 1] = total;
      return { ids: Int32Array.from(ids), ends: Int32Array.from(ends) };
    },
  };
}
