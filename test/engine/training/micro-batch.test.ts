import { expect, test } from "vitest";
import { microBatches } from "../../../src/engine/onnx/training/micro-batch.ts";

const sequence = (...ids: number[]) => ({ ids: Int32Array.from(ids), weights: new Float32Array(ids.length) });
const run = (start: number, length: number): number[] => Array.from({ length }, (_, i) => start + i);
const everything = { fits: () => true, recompute: () => false };

test("samples of one question share it, and questions behind one system prompt stay apart", () => {
  const system = run(0, 40);
  const [first, second] = [
    [...system, ...run(100, 60)],
    [...system, ...run(200, 60)],
  ];
  const sequences = [
    sequence(...first, 1),
    sequence(...second, 1, 2),
    sequence(...first, 2, 3),
    sequence(...second, 4),
    sequence(7, 8, 9),
  ];
  const batches = microBatches(sequences, everything).map(({ members, shared }) => ({
    members: members.toSorted(),
    shared,
  }));
  expect(batches).toHaveLength(3);
  expect(batches).toContainEqual({ members: [0, 2], shared: 100 });
  expect(batches).toContainEqual({ members: [1, 3], shared: 100 });
  expect(batches).toContainEqual({ members: [4], shared: 0 });
});

test("equal sequences keep one token of their own each", () => {
  const same = [sequence(...run(0, 30)), sequence(...run(0, 30))];
  expect(microBatches(same, everything)).toEqual([{ members: [0, 1], shared: 29, length: 8 }]);
});

test("a batch holds no more than fits, long sequences first, and every sequence is in one", () => {
  const lengths = [5, 90, 12, 33, 60, 8, 41];
  const sequences = lengths.map((length, i) => sequence(...run(1000 * i, length)));
  const batches = microBatches(sequences, { ...everything, fits: ({ rows }) => rows <= 96 });
  expect(batches.flatMap(({ members }) => members).toSorted()).toEqual([0, 1, 2, 3, 4, 5, 6]);
  for (const { members, length } of batches) {
    expect(members.length === 1 || members.length * length <= 96).toBe(true);
    for (const member of members) expect(length).toBeGreaterThanOrEqual(lengths[member]!);
  }
});

test("a single sequence that fits nowhere is computed alone", () => {
  expect(microBatches([sequence(...run(0, 50))], { ...everything, fits: () => false })).toHaveLength(1);
});

test("a group is cut so that no layer is computed twice where that costs less than its prompt again", () => {
  const group = (prompt: number) =>
    Array.from({ length: 8 }, (_, i) => sequence(...run(0, prompt), 500 + i, ...run(600, 99)));
  const limits = { ...everything, recompute: ({ rows }: { rows: number }) => rows > 700 };
  const sizes = (prompt: number): number[] => microBatches(group(prompt), limits).map(({ members }) => members.length);
  // 904 rows computed twice against 904 + 100; 1,432 against three more prompts of 600.
  expect(sizes(100)).toEqual([5, 3]);
  expect(sizes(600)).toEqual([8]);
});
