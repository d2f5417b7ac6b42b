import { describe, expect, test } from "vitest";
import { choosePrecision } from "../../../src/engine/auto-precision.ts";
import type { Precision } from "../../../src/engine/engine.ts";
import { estimateBytes } from "../../../src/engine/placement.ts";
import type { Checkpoint, Family } from "../../../src/model/checkpoint.ts";

const GB = 1e9;
const SMALL = 0.135e9;
const MIDDLE = 1.5e9;
const LARGE = 7e9;

const model = (parameters: number, more: { family?: Family; ggufType?: string } = {}): Checkpoint =>
  ({ parameters, config: { family: more.family ?? "qwen2" }, ggufType: more.ggufType }) as unknown as Checkpoint;
const choose = (checkpoint: Checkpoint, budgetBytes: number, device = "cpu"): Precision =>
  choosePrecision(checkpoint, { budgetBytes, device });
/** The least budget of which a model at this precision takes no more than the share. */
const budgetFor = (checkpoint: Checkpoint, precision: Precision, share: number): number =>
  Math.ceil(estimateBytes(checkpoint, { precision }) / share);

describe("by size and memory", () => {
  test.each<[string, number, number, Precision]>([
    ["a small model on a laptop", SMALL, 11 * GB, "fp32"],
    ["596 M parameters", 0.596e9, 11 * GB, "fp32"],
    ["a little more is too slow in fp32", 0.61e9, 1_000 * GB, "q8"],
    ["a middle one", MIDDLE, 11 * GB, "q8"],
    ["a large one on a small machine", LARGE, 11 * GB, "q4"],
    ["a large one on a large machine", LARGE, 45 * GB, "q8"],
    ["one that does not fit at all", LARGE, 1 * GB, "q4"],
  ])("%s", (_, parameters, budget, expected) => {
    expect(choose(model(parameters), budget)).toBe(expected);
  });

  test("fp32 takes a third of the budget at most, 8 bits half of it", () => {
    const small = model(SMALL);
    const third = budgetFor(small, "fp32", 1 / 3);
    expect([choose(small, third), choose(small, third - 10)]).toEqual(["fp32", "q8"]);
    const half = budgetFor(small, "q8", 1 / 2);
    expect([choose(small, half), choose(small, half - 10)]).toEqual(["q8", "q4"]);
  });
});

describe("from a GGUF file", () => {
  test.each<[string, number, Precision]>([
    ["Q8_0", 45 * GB, "q8_0"],
    ["Q8_0", 15.5 * GB, "q8"],
    ["Q8_0", 11 * GB, "q4"],
    ["Q4_0", 45 * GB, "q4_0"],
    ["Q4_0", 11 * GB, "q4_0"],
    ["Q4_0", 5 * GB, "q4"],
    // Rounded to other blocks of 4 bits they would lose more than they have lost.
    ["Q4_K", 45 * GB, "q8"],
    ["Q4_1", 11 * GB, "q4_0"],
    ["Q4_K", 11 * GB, "q4_0"],
    ["Q4_K", 5 * GB, "q4"],
    ["Q6_K", 45 * GB, "q8"],
    ["Q6_K", 11 * GB, "q4"],
    ["F16", 45 * GB, "q8"],
  ])("of %s with a budget of %d bytes", (ggufType, budget, expected) => {
    expect(choose(model(LARGE, { ggufType }), budget)).toBe(expected);
  });

  test("a small one is computed in fp32, which keeps its numbers as well", () => {
    expect(choose(model(SMALL, { ggufType: "Q4_0" }), 11 * GB)).toBe("fp32");
  });
});

describe("gemma3 keeps 8 bits", () => {
  const family = "gemma3";
  test.each<[string | undefined, number, Precision]>([
    [undefined, 45 * GB, "q8"],
    [undefined, 2 * GB, "q8"],
    ["Q4_K", 2 * GB, "q8"],
    ["Q8_0", 2 * GB, "q8"],
    // Its makers trained this one for just these numbers.
    ["Q4_0", 45 * GB, "q4_0"],
    ["Q4_0", 2 * GB, "q4_0"],
  ])("from %s with a budget of %d bytes", (ggufType, budget, expected) => {
    expect(choose(model(LARGE, { family, ...(ggufType ? { ggufType } : {}) }), budget)).toBe(expected);
  });
});

test.each(["cuda:0", "webgpu"])("on %s always fp32", (device) => {
  expect(choose(model(LARGE, { ggufType: "Q4_0" }), 1 * GB, device)).toBe("fp32");
});
