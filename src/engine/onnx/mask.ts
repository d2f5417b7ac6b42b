/** Added to a score it makes exp() exactly 0, and it cannot overflow. */
const MASKED = -1e30;

/**
 * Additive attention mask (B, 1, R, 1, P + S): new token s of row b, at position lengths[b] + s, sees cached positions
 * below lengths[b] and new tokens up to itself; with a window, only those less than `window` positions back.
 * Rows from S to R−1 (padding of the query) see everything and are thrown away.
 */
export function attentionMask(shape: {
  lengths: readonly number[];
  capacity: number;
  length: number;
  queryRows: number;
  window: number | null;
}): Float32Array {
  const { lengths, capacity, length, queryRows, window } = shape;
  const width = capacity + length;
  const mask = new Float32Array(lengths.length * queryRows * width);
  const reach = window ?? Number.POSITIVE_INFINITY;
  for (let b = 0; b < lengths.length; b++) {
    const cached = lengths[b]!;
    for (let s = 0; s < length; s++) {
      const row = (b * queryRows + s) * width;
      mask.fill(MASKED, row, row + Math.min(capacity, Math.max(0, cached + s - reach + 1)));
      mask.fill(MASKED, row + Math.min(cached, capacity), row + capacity);
      mask.fill(MASKED, row + capacity, row + capacity + Math.max(0, s - reach + 1));
      mask.fill(MASKED, row + capacity + s + 1, row + width);
    }
  }
  return mask;
}
