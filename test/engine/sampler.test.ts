import { expect, test } from "vitest";
import {
  type DrawOptions,
  draw,
  type HeadRow,
  headTemperature,
  mostLikely,
  neededRow,
} from "../../src/engine/onnx/sampler.ts";

const probs = Float32Array.of(0.1, 0.4, 0, 0.3, 0.2);
const logits = probs.map((p) => (p === 0 ? -50 : Math.log(p)));
const row: HeadRow = { kind: "probs", probs };
const withLogits: HeadRow = { kind: "logits", probs, logits };
const options = (params: Partial<DrawOptions["params"]>, rest: Partial<DrawOptions> = {}): DrawOptions => ({
  params: { temperature: 1, topP: 1, topK: 0, maxTokens: 1, ...params },
  logprobsTemperature: 1,
  topLogprobs: 0,
  ...rest,
});
const idsOver = (o: DrawOptions): number[] => {
  const ids = new Set<number>();
  for (let u = 0; u < 1; u += 0.001) ids.add(draw(row, o, u).id);
  return [...ids].sort();
};

test("the inverse of the cumulative distribution, in order of ids", () => {
  expect([0, 0.099, 0.11, 0.49, 0.51, 0.79, 0.81, 0.9999].map((u) => draw(row, options({}), u).id)).toEqual([
    0, 0, 1, 1, 3, 3, 4, 4,
  ]);
  expect(idsOver(options({}))).toEqual([0, 1, 3, 4]);
});

test("top-k, top-p and both: what top-k leaves counts as the whole", () => {
  expect(idsOver(options({ topK: 2 }))).toEqual([1, 3]);
  expect(idsOver(options({ topP: 0.39 }))).toEqual([1]);
  expect(idsOver(options({ topP: 0.65 }))).toEqual([1, 3]);
  // Of 0.4 + 0.3 the first is 57 %.
  expect(idsOver(options({ topK: 2, topP: 0.5 }))).toEqual([1]);
  expect(idsOver(options({ topK: 2, topP: 0.6 }))).toEqual([1, 3]);
  expect(idsOver(options({ topK: 99 }))).toEqual([0, 1, 3, 4]);
});

test("shares of the draws follow the renormalised probabilities", () => {
  const counts = new Map<number, number>();
  for (let i = 0; i < 1000; i++) {
    const { id } = draw(row, options({ topK: 2 }), i / 1000);
    counts.set(id, (counts.get(id) ?? 0) + 1);
  }
  expect(Math.abs(counts.get(1)! - (1000 * 0.4) / 0.7)).toBeLessThan(2);
});

test("greedy takes the largest; the reported log-prob belongs to the reporting temperature", () => {
  expect(draw(row, options({ temperature: 0 }), 0.99)).toMatchObject({ id: 1 });
  expect(draw(row, options({}), 0.2).logprob).toBeCloseTo(Math.log(0.4), 6);
  const other = options({}, { logprobsTemperature: 2 });
  expect(neededRow(other)).toBe("logits");
  const normaliser = [0.1, 0.4, 0.3, 0.2].reduce((sum, p) => sum + Math.sqrt(p), 0);
  expect(draw(withLogits, other, 0.2).logprob).toBeCloseTo(Math.log(Math.sqrt(0.4) / normaliser), 6);
  expect(headTemperature(options({ temperature: 0 }, { logprobsTemperature: 0.7 }))).toBe(0.7);
});

test("the most likely alternatives, finite even where a probability underflows", () => {
  const { top } = draw(withLogits, options({}, { topLogprobs: 5 }), 0);
  expect([...top!.ids]).toEqual([1, 3, 4, 0, 2]);
  expect(top!.logprobs[0]).toBeCloseTo(Math.log(0.4), 6);
  expect(top!.logprobs.every(Number.isFinite)).toBe(true);
  expect(mostLikely(Float32Array.of(1, 3, 3, 2), 3)).toEqual([1, 2, 3]);
});

test("the k largest by sorting and by insertion are the same, ties and all", () => {
  const values = Float32Array.from({ length: 1000 }, (_, i) => (i * 7919) % 97);
  const sorted = [...values.keys()].sort((a, b) => values[b]! - values[a]! || a - b);
  for (const k of [1, 50, 128, 129, 500, 1000, 2000]) expect(mostLikely(values, k)).toEqual(sorted.slice(0, k));
});

test("output that is not a number is an error, never an id", () => {
  const broken = Float32Array.of(Number.NaN, 0.5, 0.5);
  expect(() => draw({ kind: "probs", probs: broken }, options({}), 0.5)).toThrow("not numbers");
});

test("a plain draw needs one block of ids, greedy one id", () => {
  expect(neededRow(options({}))).toBe("draw");
  expect(neededRow(options({ temperature: 0 }))).toBe("best");
  expect(neededRow(options({ topP: 0.9 }))).toBe("probs");
  // Ids 4…7 of a vocabulary, 0.5 of the probability before them, the draw at 0.75.
  const block: HeadRow = {
    kind: "draw",
    block: 1,
    probs: Float32Array.of(0.2, 0, 0.1, 0.2),
    before: 0.5,
    at: 0.75,
    total: 1,
  };
  expect(draw(block, options({}), 0.75)).toEqual({ id: 6, logprob: Math.log(Math.fround(0.1)) });
  expect(draw({ kind: "best", id: 9, prob: 0.25 }, options({ temperature: 0 }), 0.5)).toEqual({
    id: 9,
    logprob: Math.log(0.25),
  });
  expect(() => draw({ ...block, total: Number.NaN }, options({}), 0.75)).toThrow("not numbers");
  expect(() => draw({ kind: "best", id: 0, prob: Number.NaN }, options({ temperature: 0 }), 0)).toThrow("not numbers");
});

test("a draw at the very end of its block, or past it by rounding, is still an id that can be drawn", () => {
  const block: HeadRow = {
    kind: "draw",
    block: 0,
    probs: Float32Array.of(0.5, 0.25, 0, 0),
    before: 0,
    at: 0.75,
    total: 0.75,
  };
  expect(draw(block, options({}), 0.999).id).toBe(1);
});
