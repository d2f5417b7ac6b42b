import type { ByteRange } from "../text/text.ts";

/** Tokens [from, to) of a sequence. */
export interface TokenSpan {
  from: number;
  to: number;
}

/**
 * The tokens whose bytes lie wholly inside a byte range (method.md, "Spans"). A tag and the newline after it often merge
 * into one token, which then belongs to neither.
 *
 * @param ends (T) byte offset at which each token ends; token i covers ends[i−1]…ends[i].
 */
export function tokensInside(ends: Int32Array, range: ByteRange): TokenSpan {
  // First token that starts at or after range.start: the one after the last token that ends before… or exactly there.
  let from = lowerBound(ends, range.start) + 1;
  if (range.start === 0) from = 0;
  let to = lowerBound(ends, range.end + 1);
  // Tokens without bytes (unknown ids, specials) at the border say nothing about the span.
  while (from < to && startOf(ends, from) === ends[from]) from++;
  while (to > from && startOf(ends, to - 1) === ends[to - 1]) to--;
  if (to < from) to = from;
  return { from, to };
}

export function startOf(ends: Int32Array, token: number): number {
  return token === 0 ? 0 : (ends[token - 1] as number);
}

/** Index of the first token that ends at or after `offset`. */
function lowerBound(ends: Int32Array, offset: number): number {
  let low = 0;
  let high = ends.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((ends[middle] as number) < offset) low = middle + 1;
    else high = middle;
  }
  return low;
}
