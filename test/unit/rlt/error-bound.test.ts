import fc from "fast-check";
import { expect, test } from "vitest";
import { estimate } from "../../../src/rlt/compare.ts";
import { klBound, solutionBound } from "../../../src/rlt/error-bound.ts";
import { k1 } from "../../../src/rlt/kl.ts";
import { DEFAULT_COEFFICIENTS, klReward, solutionReward } from "../../../src/rlt/reward.ts";

const TOKENS = 12;
const nats = fc.array(fc.double({ min: -9, max: -0.01, noNaN: true }), { minLength: TOKENS, maxLength: TOKENS });
const bounds = fc.array(fc.double({ min: 0, max: 0.4, noNaN: true }), { minLength: TOKENS, maxLength: TOKENS });
/** Where in ± its bound each exact value lies. */
const shifts = fc.array(fc.double({ min: -1, max: 1, noNaN: true }), { minLength: TOKENS, maxLength: TOKENS });
/** The reward's own rounding. */
const ROUNDING = 1e-9;

test("an exact solution reward lies within the bound of an estimated one", () => {
  fc.assert(
    fc.property(nats, bounds, shifts, (estimated, bound, shift) => {
      const exact = estimated.map((value, i) => value + bound[i]! * shift[i]!);
      const reward = (values: number[]): number => solutionReward(values, DEFAULT_COEFFICIENTS).reward;
      const limit = solutionBound((token) => bound[token]!, { from: 0, to: TOKENS }, DEFAULT_COEFFICIENTS);
      expect(Math.abs(reward(exact) - reward(estimated))).toBeLessThanOrEqual(limit + ROUNDING);
    }),
  );
});

test.each(["k1", "k3"] as const)("an exact %s reward lies within the bound of an estimated one", (estimator) => {
  // Stretches of one, two and three tokens on either side.
  const stretches = [
    { teacher: { from: 0, to: 1 }, student: { from: 0, to: 2 } },
    { teacher: { from: 1, to: 4 }, student: { from: 2, to: 3 } },
    { teacher: { from: 4, to: 6 }, student: { from: 3, to: 6 } },
  ];
  fc.assert(
    fc.property(nats, bounds, shifts, nats, bounds, shifts, (teacher, tBound, tShift, student, sBound, sShift) => {
      const values = (t: number[], s: number[]): Float64Array =>
        estimate(
          estimator,
          stretches,
          (token) => t[token]!,
          (token) => s[token]!,
        );
      const reward = (kl: Float64Array): number => klReward(kl, 6, DEFAULT_COEFFICIENTS).reward;
      const estimated = values(teacher, student);
      const exact = values(
        teacher.map((value, i) => value + tBound[i]! * tShift[i]!),
        student.map((value, i) => value + sBound[i]! * sShift[i]!),
      );
      const differences = k1(
        stretches,
        (token) => teacher[token]!,
        (token) => student[token]!,
      );
      const limit = klBound(
        { stretches, values: estimated, tokens: 6, estimator },
        differences,
        (token) => tBound[token]!,
        (token) => sBound[token]!,
        DEFAULT_COEFFICIENTS,
      );
      expect(Math.abs(reward(exact) - reward(estimated))).toBeLessThanOrEqual(limit * (1 + ROUNDING) + ROUNDING);
    }),
  );
});

test("exact numbers have no bound", () => {
  expect(solutionBound(null, { from: 0, to: 3 }, DEFAULT_COEFFICIENTS)).toBe(0);
});
