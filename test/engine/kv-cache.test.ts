import { expect, test } from "vitest";
import { addRow, append, CAPACITY_STEP, createCache, type KvCache, removeRow } from "../../src/engine/onnx/kv-cache.ts";

const SHAPE = { layers: 2, kvHeads: 2, headDim: 3 };

/** New positions whose numbers say where they belong: layer, head, position and dimension. */
function rows(tags: number[], from: number[], length: number, layer: number): Float32Array {
  const { kvHeads, headDim } = SHAPE;
  const out: number[] = [];
  for (const [row, tag] of tags.entries())
    for (let head = 0; head < kvHeads; head++)
      for (let s = 0; s < length; s++)
        for (let d = 0; d < headDim; d++) out.push(label(tag, layer, head, from[row]! + s, d));
  return Float32Array.from(out);
}
const label = (tag: number, layer: number, head: number, position: number, d: number): number =>
  tag * 1e6 + layer * 1e5 + head * 1e4 + position * 10 + d;

function extend(cache: KvCache, tags: number[], length: number): void {
  const from = [...cache.lengths];
  const both = [0, 1].map((layer) => rows(tags, from, length, layer));
  append(cache, length, both, both);
}

function check(cache: KvCache, tags: number[], lengths: number[]): void {
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

const single = (): KvCache => Object.assign(createCache(SHAPE), { rows: 1, lengths: [0] });

test("positions are appended in chunks and survive growing", () => {
  const cache = single();
  for (let chunk = 0; chunk < 5; chunk++) extend(cache, [1], 30);
  check(cache, [1], [150]);
  expect(cache.capacity).toBe(2 * CAPACITY_STEP);
});

test("rows join with their prompt, grow apart, leave and make room", () => {
  const [short, long] = [single(), single()];
  extend(short, [1], 3);
  extend(long, [2], CAPACITY_STEP + 5);
  const batch = createCache(SHAPE);
  addRow(batch, short, 0);
  addRow(batch, long, 0);
  addRow(batch, short, 0);
  extend(batch, [1, 2, 1], 1);
  check(batch, [1, 2, 1], [4, CAPACITY_STEP + 6, 4]);
  removeRow(batch, 1);
  check(batch, [1, 1], [4, 4]);
  extend(batch, [1, 1], 1);
  check(batch, [1, 1], [5, 5]);
  expect(batch.capacity).toBe(CAPACITY_STEP);
  removeRow(batch, 1);
  removeRow(batch, 0);
  check(batch, [], []);
});

test("a row that held NaN leaves zeros behind", () => {
  const source = single();
  const nan = [0, 1].map(() => new Float32Array(SHAPE.kvHeads * SHAPE.headDim).fill(Number.NaN));
  append(source, 1, nan, nan);
  const batch = createCache(SHAPE);
  addRow(batch, source, 0);
  removeRow(batch, 0);
  expect([...batch.keys, ...batch.values].every((array) => array.every((value) => value === 0))).toBe(true);
});
