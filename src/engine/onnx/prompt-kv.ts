import type { CacheShape } from "./kv-rows.ts";

/**
 * Keys and values of one text, positions outermost: (capacity, kvHeads, D) per layer. Appending is one copy per layer, a
 * stretch of positions is one stretch of memory, and all samples of a prompt read the same arrays.
 */
export interface PromptKv {
  readonly shape: CacheShape;
  /** Filled positions. */
  length: number;
  /** Positions there is room for, a multiple of ROOM_STEP; those beyond `length` are zero. */
  readonly capacity: number;
  readonly keys: readonly Float32Array[];
  readonly values: readonly Float32Array[];
}

/**
 * Rooms for positions are multiples of this: the kernel of a softmax adds in lanes, and a position must lie in the same lane
 * whether a prompt is shared or stands in a row of its own.
 */
export const ROOM_STEP = 64;

/** Numbers of one position in one layer. */
export const rowSize = ({ kvHeads, headDim }: CacheShape): number => kvHeads * headDim;

/** With room for at least `positions`. */
export function createPromptKv(shape: CacheShape, positions: number): PromptKv {
  const capacity = Math.ceil(positions / ROOM_STEP) * ROOM_STEP;
  const empty = (): Float32Array[] =>
    Array.from({ length: shape.layers }, () => new Float32Array(capacity * rowSize(shape)));
  return { shape, length: 0, capacity, keys: empty(), values: empty() };
}

export function promptBytes({ keys }: PromptKv): number {
  return keys.reduce((sum, array) => sum + 2 * array.byteLength, 0);
}

/** Appends `count` positions that lie from position `from` on in arrays of the same layout. */
export function appendPositions(
  kv: PromptKv,
  keys: readonly Float32Array[],
  values: readonly Float32Array[],
  from: number,
  count: number,
): void {
  const size = rowSize(kv.shape);
  for (let layer = 0; layer < kv.shape.layers; layer++) {
    kv.keys[layer]!.set(keys[layer]!.subarray(from * size, (from + count) * size), kv.length * size);
    kv.values[layer]!.set(values[layer]!.subarray(from * size, (from + count) * size), kv.length * size);
  }
  kv.length += count;
}
