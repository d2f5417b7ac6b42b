import { type PromptKv, ROOM_STEP, rowSize } from "./prompt-kv.ts";

/**
 * Keys and values of B sequences as plain arrays, read in place by the decode graph and written here: fetching or
 * concatenating them inside the graph costs several times more (engine.md 1.2).
 */

export interface CacheShape {
  layers: number;
  kvHeads: number;
  headDim: number;
}

export interface KvRows {
  readonly shape: CacheShape;
  /** Sequences in use; they lie in rows 0…rows−1. */
  rows: number;
  /** Positions there is room for in a row. */
  capacity: number;
  /** Filled positions of each row. */
  lengths: number[];
  /** Per layer (rows, kvHeads, capacity, D); arrays may hold more rows than are in use. Unfilled positions are finite. */
  keys: Float32Array[];
  values: Float32Array[];
}

/** Attention over masked positions costs time, moving to larger arrays costs a copy: four steps per doubling keep both small. */
const STEPS_PER_ROW = 4;

export function createRows(shape: CacheShape): KvRows {
  const empty = Array.from({ length: shape.layers }, () => new Float32Array(0));
  return { shape, rows: 0, capacity: 0, lengths: [], keys: empty, values: [...empty] };
}

/** The capacity that rows of this length get: steps of ROOM_STEP at first, of about a quarter later. */
export function roundCapacity(length: number): number {
  const step = Math.max(ROOM_STEP, 2 ** Math.floor(Math.log2(Math.max(1, length / STEPS_PER_ROW))));
  return Math.ceil(length / step) * step;
}

/** Bytes of keys and values of one position of one sequence. */
export function bytesPerPosition(shape: CacheShape): number {
  return 2 * shape.layers * rowSize(shape) * Float32Array.BYTES_PER_ELEMENT;
}

export function rowsBytes(cache: KvRows): number {
  return cache.keys.reduce((sum, keys) => sum + 2 * keys.byteLength, 0);
}

/** Makes room for `rows` sequences of `length` positions; keeps what is there. Gives room back once half would do. */
export function reserve(cache: KvRows, rows: number, length: number): void {
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

function relocated(old: Float32Array, cache: KvRows, roomRows: number, capacity: number): Float32Array {
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

/** Appends one position to every row. `newKeys[l]`, `newValues[l]`: (≥ rows, kvHeads, 1, D). */
export function append(cache: KvRows, newKeys: readonly Float32Array[], newValues: readonly Float32Array[]): void {
  reserve(cache, cache.rows, Math.max(...cache.lengths) + 1);
  for (let layer = 0; layer < cache.shape.layers; layer++) {
    write(cache, cache.keys[layer]!, newKeys[layer]!);
    write(cache, cache.values[layer]!, newValues[layer]!);
  }
  for (let row = 0; row < cache.rows; row++) cache.lengths[row]! += 1;
}

function write(cache: KvRows, into: Float32Array, from: Float32Array): void {
  const { kvHeads, headDim } = cache.shape;
  let read = 0;
  for (let row = 0; row < cache.rows; row++) {
    for (let head = 0; head < kvHeads; head++) {
      const to = ((row * kvHeads + head) * cache.capacity + cache.lengths[row]!) * headDim;
      for (let i = 0; i < headDim; i++) into[to + i] = from[read + i]!;
      read += headDim;
    }
  }
}

/** Adds a row without positions. */
export function addEmptyRow(cache: KvRows): void {
  cache.lengths[cache.rows++] = 0;
  reserve(cache, cache.rows, Math.max(...cache.lengths));
}

/** Adds a row that begins as a copy of a prompt. */
export function addPromptRow(cache: KvRows, prompt: PromptKv): void {
  const { kvHeads, headDim, layers } = cache.shape;
  const { length } = prompt;
  reserve(cache, cache.rows + 1, Math.max(length, ...cache.lengths));
  const row = cache.rows++;
  cache.lengths[row] = length;
  const stride = rowSize(cache.shape);
  const copy = (into: Float32Array, from: Float32Array): void => {
    for (let head = 0; head < kvHeads; head++) {
      let to = (row * kvHeads + head) * cache.capacity * headDim;
      for (let position = 0; position < length; position++) {
        const read = position * stride + head * headDim;
        for (let i = 0; i < headDim; i++) into[to++] = from[read + i]!;
      }
    }
  };
  for (let layer = 0; layer < layers; layer++) {
    copy(cache.keys[layer]!, prompt.keys[layer]!);
    copy(cache.values[layer]!, prompt.values[layer]!);
  }
}

/** Drops a row; the last one takes its place. Whoever left must not leave NaN behind: masked positions still enter products. */
export function removeRow(cache: KvRows, row: number): void {
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
