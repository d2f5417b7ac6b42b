import { expect, test } from "vitest";
import {
  addEmptyRow,
  addPromptRow,
  append,
  createRows,
  type KvRows,
  removeRow,
  roundCapacity,
} from "../../src/engine/onnx/kv-rows.ts";
import { appendPositions, createPromptKv, type PromptKv } from "../../src/engine/onnx/prompt-kv.ts";

const SHAPE = { layers: 2, kvHeads: 2, headDim: 3 };

/** Numbers that say where they belong: text, layer, head, position and dimension. */
const label = (tag: number, layer: number, head: number, position: number, d: number): number =>
  tag * 1e6 + layer * 1e5 + head * 1e4 + position * 10 + d;

const positionOf = (tag: number, layer: number, position: number): number[] =>
  [0, 1].flatMap((head) => [0, 1, 2].map((d) => label(tag, layer, head, position, d)));

function promptOf(tag: number, length: number): PromptKv {
  const kv = createPromptKv(SHAPE, length);
  const layers = [0, 1].map((layer) =>
    Float32Array.from(Array.from({ length }, (_, position) => positionOf(tag, layer, position)).flat()),
  );
  // In two stretches, the second from the middle of a larger array.
  const first = Math.floor(length / 2);
  appendPositions(kv, layers, layers, 0, first);
  appendPositions(kv, layers, layers, first, length - first);
  return kv;
}

function extend(cache: KvRows, tags: number[]): void {
  const both = [0, 1].map((layer) =>
    Float32Array.from(tags.flatMap((tag, row) => positionOf(tag, layer, cache.lengths[row]!))),
  );
  append(cache, both, both);
}

function check(cache: KvRows, tags: number[], lengths: number[]): void {
  const { kvHeads, headDim } = SHAPE;
  expect(cache.rows).toBe(tags.length);
  expect(cache.lengths).toEqual(lengths);
  for (const side of [cache.keys, cache.values]) {
    for (const [layer, data] of side.entries()) {
      for (const [row, tag] of tags.entries()) {
        for (let head = 0; head < kvHeads; head++) {
          for (let p = 0; p < cache.capacity; p++) {
            const at = ((row * kvHeads + head) * cache.capacity + p) * headDim;
            const expected = p < lengths[row]! ? label(tag, layer, head, p, 1) : 0;
            expect(data[at + 1]).toBe(expected);
          }
        }
      }
    }
  }
}

test("rows grow position by position and survive growing", () => {
  const cache = createRows(SHAPE);
  addEmptyRow(cache);
  for (let step = 0; step < 150; step++) extend(cache, [1]);
  check(cache, [1], [150]);
  expect(cache.capacity).toBe(roundCapacity(150));
});

test("rows join with their prompt, grow apart, leave and make room", () => {
  const long = roundCapacity(1) + 5;
  const batch = createRows(SHAPE);
  addPromptRow(batch, promptOf(1, 3));
  addPromptRow(batch, promptOf(2, long));
  addPromptRow(batch, promptOf(1, 3));
  extend(batch, [1, 2, 1]);
  check(batch, [1, 2, 1], [4, long + 1, 4]);
  removeRow(batch, 1);
  check(batch, [1, 1], [4, 4]);
  extend(batch, [1, 1]);
  check(batch, [1, 1], [5, 5]);
  expect(batch.capacity).toBe(roundCapacity(5));
  removeRow(batch, 1);
  removeRow(batch, 0);
  check(batch, [], []);
});

test("a row that joins late starts empty beside long ones", () => {
  const cache = createRows(SHAPE);
  addEmptyRow(cache);
  for (let step = 0; step < 70; step++) extend(cache, [1]);
  addEmptyRow(cache);
  extend(cache, [1, 2]);
  check(cache, [1, 2], [71, 1]);
});

test("a row that held NaN leaves zeros behind", () => {
  const nan = [0, 1].map(() => new Float32Array(SHAPE.kvHeads * SHAPE.headDim).fill(Number.NaN));
  const batch = createRows(SHAPE);
  addEmptyRow(batch);
  append(batch, nan, nan);
  removeRow(batch, 0);
  expect([...batch.keys, ...batch.values].every((array) => array.every((value) => value === 0))).toBe(true);
});

test("capacities follow the length: never too small, at most a quarter or one step above", () => {
  for (let length = 0; length < 3000; length += 7) {
    const capacity = roundCapacity(length);
    expect(capacity).toBeGreaterThanOrEqual(length);
    expect(capacity).toBeLessThanOrEqual(Math.max(length * 1.25, length + 64));
  }
});
