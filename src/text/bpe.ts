import { METASPACE } from "./pre-tokenizer.ts";
import type { BpeSpec } from "./tokenizer-file.ts";

/**
 * Byte-pair encoding of one word: start from characters, always join the adjacent pair that was learnt first (leftmost on
 * a tie) until no pair is known. Pairs wait in a heap, O(n log n). Sennrich et al., arXiv 1508.07909; unknown characters
 * and byte fallback as in the Rust tokenizers.
 *
 * Ours, because spans need what the JavaScript library does not give: where each token ends, special tokens that stay
 * text, and long texts without quadratic time. The tests hold it to that library's ids.
 */
export interface Bpe {
  /**
   * The word's ids, and for each the end of its source, counted in the word's *units*: a character of the byte alphabet
   * is one unit; otherwise a character has as many as it has UTF-8 bytes, and `▁` one, the space it stands for.
   */
  encode(word: string): Word;
  idOf(token: string): number | undefined;
}

export interface Word {
  /** (T) */
  ids: readonly number[];
  /** (T) */
  ends: readonly number[];
  /** Units of the whole word; more than the last end where an unknown character was dropped. */
  units: number;
}

/** An id pair as one exact number: ids < 2^22. */
const PAIR = 2 ** 22;
/** Rank and position as one exact number: ranks < 2^22, positions < 2^30. */
const POSITIONS = 2 ** 30;
/** Longer words hardly ever come again. */
const MAX_CACHED_CHARS = 64;
/** Some 10 MB; covers the working set of ordinary text. */
const CACHED_WORDS = 32_768;

/** @param banned tokens that text must never become: control tokens that lie in the vocabulary. */
export function createBpe(spec: BpeSpec, options: { byteLevel: boolean; banned: ReadonlySet<string> }): Bpe {
  const { byteLevel, banned } = options;
  const idOf = (token: string): number | undefined => (banned.has(token) ? undefined : spec.vocab.get(token));
  // rank of a pair, and what each rank makes
  const ranks = new Map<number, number>();
  const products = new Int32Array(spec.merges.length);
  spec.merges.forEach(([left, right], rank) => {
    const a = idOf(left);
    const b = idOf(right);
    const product = idOf(left + right);
    if (a === undefined || b === undefined || product === undefined) return;
    if (!ranks.has(a * PAIR + b)) ranks.set(a * PAIR + b, rank);
    products[rank] = product;
  });
  // The unknown token stands for text, special or not.
  const unk = spec.unkToken === null ? undefined : spec.vocab.get(spec.unkToken);
  const byteIds = spec.byteFallback ? fallbackIds(spec.vocab) : undefined;
  const cache = new Map<string, Word>();

  function start(word: string): { ids: number[]; ends: number[]; units: number } {
    const ids: number[] = [];
    const ends: number[] = [];
    let units = 0;
    let afterUnknown = false;
    for (const char of word) {
      const length = byteLevel || char === METASPACE ? 1 : utf8Length(char);
      const id = idOf(char);
      const bytes = id === undefined && byteIds ? Array.from(Buffer.from(char), (byte) => byteIds[byte]) : undefined;
      if (id !== undefined) {
        ids.push(id);
        ends.push(units + length);
        afterUnknown = false;
      } else if (bytes?.every((byte) => byte !== undefined)) {
        bytes.forEach((byte, i) => {
          ids.push(byte as number);
          ends.push(units + Math.min(i + 1, length));
        });
        afterUnknown = false;
      } else if (unk !== undefined) {
        if (!(afterUnknown && spec.fuseUnk)) ids.push(unk);
        ends[ids.length - 1] = units + length;
        afterUnknown = true;
      }
      units += length;
    }
    return { ids, ends, units };
  }

  /** ids and ends are linked lists over the starting symbols; a joined symbol lives at its leftmost position. */
  function merge(ids: number[], ends: number[]): void {
    const n = ids.length;
    const next = Int32Array.from({ length: n }, (_, i) => i + 1);
    const previous = Int32Array.from({ length: n }, (_, i) => i - 1);
    const heap: number[] = [];
    const rankAt = (i: number): number | undefined => {
      const right = next[i] as number;
      return right < n ? ranks.get((ids[i] as number) * PAIR + (ids[right] as number)) : undefined;
    };
    const offer = (i: number): void => {
      const rank = rankAt(i);
      if (rank !== undefined) push(heap, rank * POSITIONS + i);
    };
    for (let i = 0; i < n - 1; i++) offer(i);
    while (heap.length > 0) {
      const key = pop(heap);
      const i = key % POSITIONS;
      const rank = (key - i) / POSITIONS;
      // The pair may be gone: a neighbour was joined first.
      if (ids[i] === GONE || rankAt(i) !== rank) continue;
      const right = next[i] as number;
      const after = next[right] as number;
      ids[i] = products[rank] as number;
      ends[i] = ends[right] as number;
      ids[right] = GONE;
      next[i] = after;
      if (after < n) previous[after] = i;
      const before = previous[i] as number;
      if (before >= 0) offer(before);
      offer(i);
    }
  }

  function encode(word: string): Word {
    const whole = spec.ignoreMerges ? idOf(word) : undefined;
    const { ids, ends, units } = start(word);
    if (whole !== undefined) return { ids: [whole], ends: [units], units };
    if (ids.length < 2) return { ids, ends, units };
    merge(ids, ends);
    const kept = ids.flatMap((id, i) => (id === GONE ? [] : [i]));
    return { ids: kept.map((i) => ids[i] as number), ends: kept.map((i) => ends[i] as number), units };
  }

  return {
    idOf,
    encode(word) {
      const cached = cache.get(word);
      if (cached) return cached;
      const result = encode(word);
      if (word.length <= MAX_CACHED_CHARS) {
        if (cache.size >= CACHED_WORDS) cache.clear();
        cache.set(word, result);
      }
      return result;
    },
  };
}

const GONE = -1;

/**
 * Whether words of a `▁` vocabulary may be cut before every `▁` that follows another character without changing ids: so
 * it is when no merge reaches across such a place. Saves the time that one word of a whole text costs.
 */
export function splitsAtMetaspace(spec: BpeSpec): boolean {
  return (
    !spec.ignoreMerges &&
    spec.vocab.has(METASPACE) &&
    spec.merges.every(([left, right]) => left.endsWith(METASPACE) || !right.startsWith(METASPACE))
  );
}

/** Ids of `<0x00>` … `<0xFF>`. */
function fallbackIds(vocab: ReadonlyMap<string, number>): (number | undefined)[] {
  return Array.from({ length: 256 }, (_, byte) => vocab.get(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`));
}

function utf8Length(char: string): number {
  const point = char.codePointAt(0) as number;
  return point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
}

/** Binary min-heap. */
function push(heap: number[], key: number): void {
  let i = heap.length;
  heap.push(key);
  while (i > 0) {
    const parent = (i - 1) >> 1;
    if ((heap[parent] as number) <= key) break;
    heap[i] = heap[parent] as number;
    i = parent;
  }
  heap[i] = key;
}

function pop(heap: number[]): number {
  const top = heap[0] as number;
  const last = heap.pop() as number;
  const n = heap.length;
  if (n === 0) return top;
  let i = 0;
  while (true) {
    let child = 2 * i + 1;
    if (child >= n) break;
    if (child + 1 < n && (heap[child + 1] as number) < (heap[child] as number)) child++;
    if ((heap[child] as number) >= last) break;
    heap[i] = heap[child] as number;
    i = child;
  }
  heap[i] = last;
  return top;
}
