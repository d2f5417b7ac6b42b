/**
 * Keys and values of B sequences as plain arrays, read in place by the attention graph and written here: fetching or
 * concatenating a cache inside the graph costs several times more (engine.md 1.2).
 */

export interface CacheShape {
  layers: number;
  kvHeads: number;
  headDim: number;
}

export interface KvCache {
  readonly shape: CacheShape;
  /** Sequences in use; they lie in rows 0…rows−1. */
  rows: number;
  /** Positions there is room for; the P of the graph. */
  capacity: number;
  /** Filled positions of each row. */
  lengths: number[];
  /** Per layer (rows, kvHeads, capacity, D); arrays may hold more rows than are in use. Unfilled positions are finite. */
  keys: Float32Array[];
  values: Float32Array[];
}

/**
 * Capacity grows in steps: attention over masked positions costs time, moving to a larger array costs a copy.
 * At 128 both stay under 2 % of a step of a 135 M model.
 */
export const CAPACITY_STEP = 128;

export function createCache(shape: CacheShape): KvCache {
  const empty = Array.from({ length: shape.layers }, () => new Float32Array(0));
  return { shape, rows: 0, capacity: 0, lengths: [], keys: empty, values: [...empty] };
}

export const roundCapacity = (length: number): number => Math.ceil(length / CAPACITY_STEP) * CAPACITY_STEP;

/** Bytes of keys and values of one position of one sequence. */
export function bytesPerPosition({ layers, kvHeads, headDim }: CacheShape): number {
  return 2 * layers * kvHeads * headDim * Float32Array.BYTES_PER_ELEMENT;
}

export function cacheBytes(cache: KvCache): number {
  return cache.keys.reduce((sum, keys) => sum + 2 * keys.byteLength, 0);
}

/** Makes room for `rows` sequences of `length` positions; keeps what is there. Gives room back once half would do. */
export function reserve(cache: KvCache, rows: number, length: number): void {
  const { kvHeads, headDim } = cache.shape;
  const capacity = roundCapacity(length);
  const roomRows = 2 ** Math.ceil(Math.log2(Math.max(rows, 1)));
  const size = roomRows * kvHeads * capacity * headDim;
  const now = cache.keys[0]?.length ?? 0;
  const fits = capacity <= cache.capacity && rows * kvHeads * cache.capacity * headDim <= now;
  if (fits && size * 2 > now) return;
  // Growing one dimension must not shrink the other below what its rows hold.
  const kept = Math.max(capacity, ...cache.lengths.slice(0, cache.rows).map(roundCapacity));
  // All new arrays exist before one is put in place: running out of memory half-way must not mix two layouts.
  const keys = cache.keys.map((old) => relocated(old, cache, roomRows, kept));
  cache.values = cache.values.map((old) => relocated(old, cache, roomRows, kept));
  cache.keys = keys;
  cache.capacity = kept;
}

function relocated(old: Float32Array, cache: KvCache, roomRows: number, capacity: number): Float32Array {
  const { kvHeads, headDim } = cache.shape;
  const grown = new Float32Array(roomRows * kvHeads * capacity * headDim);
  for (let row = 0; row < cache.rows; row++) {
    const filled = cache.lengths[row]! * headDim;
    for (let head = row * kvHeads; head < (row + 1) * kvHeads; head++) {
      const from = head * cache.capacity * headDim;
      grown.set(old.subarray(from, from + filled), head * capacity * headDim);
    }
  }
  return grown;
}

/** Appends S positions to every row. `newKeys[l]`, `newValues[l]`: (rows, kvHeads, S, D). */
export function append(
  cache: KvCache,
  length: number,
  newKeys: readonly Float32Array[],
  newValues: readonly Float32Array[],
): void {
  reserve(cache, cache.rows, Math.max(...cache.lengths.slice(0, cache.rows)) + length);
  for (let layer = 0; layer < cache.shape.layers; layer++) {
    write(cache, cache.keys[layer]!, newKeys[layer]!, length);
    write(cache, cache.values[layer]!, newValues[layer]!, length);
  }
  for (let row = 0; row < cache.rows; row++) cache.lengths[row]! += length;
}

function write(cache: KvCache, into: Float32Array, from: Float32Array, length: number): void {
  const { kvHeads, headDim } = cache.shape;
  const block = length * headDim;
  let read = 0;
  for (let row = 0; row < cache.rows; row++) {
    for (let head = 0; head < kvHeads; head++) {
      const to = ((row * kvHeads + head) * cache.capacity + cache.lengths[row]!) * headDim;
      for (let i = 0; i < block; i++) into[to + i] = from[read + i]!;
      read += block;
    }
  }
}

/** Adds a row that begins as a copy of a row of another cache. */
export function addRow(cache: KvCache, source: KvCache, sourceRow: number): void {
  const { kvHeads, headDim } = cache.shape;
  const length = source.lengths[sourceRow]!;
  reserve(cache, cache.rows + 1, Math.max(length + 1, ...cache.lengths.slice(0, cache.rows)));
  const row = cache.rows++;
  cache.lengths[row] = length;
  for (const side of ["keys", "values"] as const) {
    for (let layer = 0; layer < cache.shape.layers; layer++) {
      const from = source[side][layer]!;
      for (let head = 0; head < kvHeads; head++) {
        const read = (sourceRow * kvHeads + head) * source.capacity * headDim;
        const to = (row * kvHeads + head) * cache.capacity * headDim;
        cache[side][layer]!.set(from.subarray(read, read + length * headDim), to);
      }
    }
  }
}

/** Drops a row; the last one takes its place. Whoever left must not leave NaN behind: masked positions still enter products. */
export function removeRow(cache: KvCache, row: number): void {
  const { kvHeads, headDim } = cache.shape;
  const stride = kvHeads * cache.capacity * headDim;
  const last = --cache.rows;
  for (const array of [...cache.keys, ...cache.values]) {
    array.copyWithin(row * stride, last * stride, (last + 1) * stride);
    array.fill(0, last * stride, (last + 1) * stride);
  }
  cache.lengths[row] = cache.lengths[last]!;
  cache.lengths.length = last;
}
