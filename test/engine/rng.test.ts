import { expect, test } from "vitest";
import { philox, uniform } from "../../src/engine/onnx/rng.ts";

const hex = (words: readonly number[]): string => words.map((w) => w.toString(16).padStart(8, "0")).join(" ");

test("philox agrees with the known answers of Random123", () => {
  expect(hex(philox([0, 0, 0, 0], [0, 0]))).toBe("6627e8d5 e169c58d bc57ac4c 9b00dbd8");
  const ones = 0xffffffff;
  expect(hex(philox([ones, ones, ones, ones], [ones, ones]))).toBe("408f276d 41c83b0e a20bc7c6 6d5451fd");
  const pi = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344] as const;
  expect(hex(philox(pi, [0xa4093822, 0x299f31d0]))).toBe("d16cfe09 94fdcceb 5001e420 24126ea1");
});

test("uniform draws fill [0, 1) evenly and every coordinate matters", () => {
  const bins = new Array<number>(10).fill(0);
  const draws = 10_000;
  for (let step = 0; step < draws; step++) bins[Math.floor(uniform(7, 3, step) * 10)]!++;
  // Five standard deviations of a binomial bin: 5 · sqrt(10⁴ · 0.1 · 0.9) = 150.
  for (const count of bins) expect(Math.abs(count - draws / 10)).toBeLessThan(150);
  const variants = [uniform(1, 1, 1), uniform(2, 1, 1), uniform(1, 2, 1), uniform(1, 1, 2), uniform(1 + 2 ** 40, 1, 1)];
  expect(new Set(variants).size).toBe(variants.length);
});
