import { expect, test } from "vitest";
import { bytesPerPosition } from "../../src/engine/onnx/kv-rows.ts";
import { BLOCK_TOKENS, createPrefixCache, type PrefixCache } from "../../src/engine/onnx/prefix-cache.ts";

const SHAPE = { layers: 2, kvHeads: 1, headDim: 2 };
const BLOCK_BYTES = BLOCK_TOKENS * bytesPerPosition(SHAPE);

const textOf = (length: number, which: number): Int32Array => Int32Array.from({ length }, (_, i) => which * 1000 + i);

/** Keys that say which token they belong to; values are their negatives. */
function rowsOf(ids: Int32Array, from = 0) {
  const rows = (sign: number) =>
    Array.from({ length: SHAPE.layers }, (_, layer) =>
      Float32Array.from([...ids.subarray(from)].flatMap((id) => [sign * (id + layer / 10), sign * id])),
    );
  return { from, keys: rows(1), values: rows(-1) };
}

const keep = (cache: PrefixCache, ids: Int32Array, adapter: object | null = null): void =>
  cache.keep(ids, ids.length, adapter, rowsOf(ids));

test("whole blocks of a beginning are found again, with their keys and values", () => {
  const cache = createPrefixCache(SHAPE, 1e6);
  const ids = textOf(40, 1);
  keep(cache, ids);
  expect(cache.bytes()).toBe(2 * BLOCK_BYTES);
  const found = cache.find(ids, 40, null, 40)!;
  expect(found.length).toBe(32);
  const { keys, values } = rowsOf(ids);
  for (let layer = 0; layer < SHAPE.layers; layer++) {
    expect(found.keys[layer]!.subarray(0, 64)).toEqual(keys[layer]!.subarray(0, 64));
    expect(found.values[layer]!.subarray(0, 64)).toEqual(values[layer]!.subarray(0, 64));
  }
  // What must be computed anyway is not looked for.
  expect(cache.known(ids, 31, null)).toBe(16);
  expect(cache.find(ids, 15, null, 40)).toBeNull();
  const other = Int32Array.from([...ids.subarray(0, 20), 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]);
  expect(cache.known(other, 32, null)).toBe(16);
});

test("texts that begin alike share blocks, adapters do not", () => {
  const cache = createPrefixCache(SHAPE, 1e6);
  const start = [...textOf(32, 1)];
  for (const which of [2, 3]) keep(cache, Int32Array.from([...start, ...textOf(16, which)]));
  expect(cache.bytes()).toBe(4 * BLOCK_BYTES);
  const adapter = {};
  expect(cache.known(Int32Array.from(start), 32, adapter)).toBe(0);
  keep(cache, Int32Array.from(start), adapter);
  expect(cache.bytes()).toBe(6 * BLOCK_BYTES);
});

test("a continuation is kept only behind its beginning", () => {
  const cache = createPrefixCache(SHAPE, 1e6);
  const ids = textOf(48, 1);
  cache.keep(ids, 48, null, rowsOf(ids, 32));
  expect(cache.bytes()).toBe(0);
  cache.keep(ids, 32, null, rowsOf(ids));
  cache.keep(ids, 48, null, rowsOf(ids, 32));
  expect(cache.known(ids, 48, null)).toBe(48);
});

test("within its budget, what was not used for longest leaves first, ends before beginnings", () => {
  const cache = createPrefixCache(SHAPE, 4 * BLOCK_BYTES);
  const [a, b, c] = [textOf(32, 1), textOf(32, 2), textOf(16, 3)];
  keep(cache, a);
  keep(cache, b);
  expect(cache.known(a, 32, null)).toBe(32);
  keep(cache, c);
  expect(cache.bytes()).toBe(4 * BLOCK_BYTES);
  expect(cache.known(a, 32, null)).toBe(32);
  expect(cache.known(b, 32, null)).toBe(16);
  expect(cache.known(c, 16, null)).toBe(16);
  const none = createPrefixCache(SHAPE, 0);
  keep(none, a);
  expect([none.bytes(), none.known(a, 32, null)]).toEqual([0, 0]);
});
