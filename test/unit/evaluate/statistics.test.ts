import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { accuracyInterval, differenceInterval, mcnemar, meanOf, passAtK } from "../../../src/evaluate/statistics.ts";
import { pairedDifference, type RowFigures, summarise } from "../../../src/evaluate/summary.ts";
import { derivedSeed } from "../../../src/train/seeds.ts";

/** Uniform in [0, 1), the same at every run. */
const draws = (seed: number): (() => number) => {
  let n = 0;
  return () => derivedSeed(seed, n++) / 2 ** 32;
};
const bits = (right: number, n: number): number[] => Array.from({ length: n }, (_, i) => (i < right ? 1 : 0));

describe("the interval of an accuracy", () => {
  test("one sample a question: Wilson's numbers (Newcombe 1998, table I)", () => {
    for (const [right, n, low, high] of [
      [81, 263, 0.2553, 0.3662],
      [15, 148, 0.0624, 0.1605],
      [0, 20, 0, 0.1611],
      [1, 29, 0.0061, 0.1718],
    ] as const) {
      const interval = accuracyInterval({ shares: bits(right, n), samples: 1 })!;
      expect(interval).toMatchObject({ level: 0.95, method: "wilson" });
      expect(interval.low).toBeCloseTo(low, 4);
      expect(interval.high).toBeCloseTo(high, 4);
    }
  });
  test("nothing is known of no rows", () => {
    expect(accuracyInterval({ shares: [], samples: 1 })).toBeNull();
    expect(summarise([], 1)).toMatchObject({ accuracy: null, interval: null, pass_at_k: {} });
  });
  test("several samples that always agree count as one, and such that are independent as many", () => {
    const one = accuracyInterval({ shares: bits(30, 100), samples: 1 })!;
    const agreeing = accuracyInterval({ shares: bits(30, 100), samples: 8 })!;
    expect(agreeing.method).toBe("wilson_effective");
    expect(agreeing.high - agreeing.low).toBeCloseTo(one.high - one.low, 2);
    const random = draws(3);
    const shares = Array.from({ length: 400 }, () => bits(8, 8).filter(() => random() < 0.3).length / 8);
    const independent = accuracyInterval({ shares, samples: 8 })!;
    const pooled = accuracyInterval({ shares: bits(Math.round(meanOf(shares) * 3200), 3200), samples: 1 })!;
    expect((independent.high - independent.low) / (pooled.high - pooled.low)).toBeCloseTo(1, 0.9);
  });
  test("it never shrinks to a point, and holds its accuracy", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 1, maxLength: 40 }), (right) => {
        const shares = right.map((n) => n / 4);
        const { low, high } = accuracyInterval({ shares, samples: 4 })!;
        const p = meanOf(shares);
        expect(low).toBeLessThanOrEqual(p);
        expect(high).toBeGreaterThanOrEqual(p);
        expect(low).toBeGreaterThanOrEqual(0);
        expect(high).toBeLessThanOrEqual(1);
        expect(high - low).toBeGreaterThan(0.02);
      }),
    );
  });
  test("95 of 100 intervals hold the truth, where questions differ in difficulty", () => {
    const random = draws(17);
    let held = 0;
    const runs = 2_000;
    for (let run = 0; run < runs; run++) {
      // Half of the questions are easy (0.8), half are hard (0.1): the truth is 0.45.
      const shares = Array.from({ length: 60 }, () => {
        const p = random() < 0.5 ? 0.8 : 0.1;
        return bits(4, 4).filter(() => random() < p).length / 4;
      });
      const { low, high } = accuracyInterval({ shares, samples: 4 })!;
      if (low <= 0.45 && 0.45 <= high) held++;
    }
    expect(held / runs).toBeGreaterThan(0.93);
    expect(held / runs).toBeLessThan(0.97);
  });
});

describe("pass@k", () => {
  const choose = (n: number, k: number): number => {
    let result = 1;
    for (let i = 1; i <= k; i++) result = (result * (n - k + i)) / i;
    return k > n ? 0 : result;
  };
  test("is 1 − C(n − c, k) / C(n, k)", () => {
    for (let n = 1; n <= 12; n++) {
      for (let c = 0; c <= n; c++) {
        for (let k = 1; k <= n; k++) expect(passAtK(n, c, k)).toBeCloseTo(1 - choose(n - c, k) / choose(n, k), 12);
      }
    }
  });
  test("at 1 it is the share, it grows with k, and n = 10,000 is no trouble", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 10_000 }), fc.nat(), fc.nat(), (n, a, b) => {
        const [c, k] = [a % (n + 1), 1 + (b % n)];
        expect(passAtK(n, c, 1)).toBeCloseTo(c / n, 9);
        if (k > 1) expect(passAtK(n, c, k)).toBeGreaterThanOrEqual(passAtK(n, c, k - 1) - 1e-12);
      }),
    );
  });
});

describe("McNemar's exact test", () => {
  test.each([
    [5, 15, 0.04138947],
    [0, 6, 0.03125],
    [1, 9, 0.02148438],
    [10, 10, 1],
    [0, 0, 1],
  ])("%i against %i", (b, c, p) => {
    expect(mcnemar(b, c)).toBeCloseTo(p, 7);
    expect(mcnemar(c, b)).toBeCloseTo(p, 7);
  });
  test("thousands of rows neither overflow nor underflow", () => {
    expect(mcnemar(5_000, 5_000)).toBe(1);
    // Two standard deviations.
    expect(mcnemar(4_900, 5_100)).toBeCloseTo(0.0466, 3);
    expect(mcnemar(0, 10_000)).toBe(0);
  });
});

describe("a paired difference", () => {
  const figures = (right: readonly number[]): RowFigures[] =>
    right.map((correct, row) => ({ row, correct, answered: 1, inFormat: 1, truncated: 0, made: 1, tokens: 1 }));

  test("names what changed", () => {
    const before = figures([...bits(10, 20), ...bits(0, 80)]);
    const after = figures([...bits(8, 20), ...bits(30, 80)]);
    const found = pairedDifference(before, after, 1);
    expect(found).toMatchObject({ improved: 30, worsened: 2, rows: 100, interval: { method: "newcombe_paired" } });
    expect(found.difference).toBeCloseTo(0.28, 12);
    expect(found.mcnemar_p!).toBeCloseTo(mcnemar(2, 30), 12);
    expect(found.interval!.low).toBeGreaterThan(0.15);
    expect(found.interval!.high).toBeLessThan(0.4);
  });
  test("rows may come in any order, but must be the same", () => {
    const rows = figures([1, 0, 1]);
    expect(pairedDifference([...rows].reverse(), rows, 1).difference).toBe(0);
    expect(() => pairedDifference(rows, rows.slice(1), 1)).toThrow(/same rows/);
  });
  test("of equal answers it is 0, and the interval is no point", () => {
    const rows = figures(bits(30, 60));
    const { difference, mcnemar_p: p, interval } = pairedDifference(rows, rows, 1);
    expect([difference, p]).toEqual([0, 1]);
    expect(interval!.high).toBeGreaterThanOrEqual(0);
    expect(interval!.low).toBeLessThanOrEqual(0);
  });
  test("Newcombe's example: 36 both, 12 and 2 one only", () => {
    const both = bits(36, 36);
    const first = { shares: [...both, ...bits(0, 12), ...bits(2, 2)], samples: 1 };
    const second = { shares: [...both, ...bits(12, 12), ...bits(0, 2)], samples: 1 };
    const { low, high } = differenceInterval(first, second)!;
    expect([low, high]).toEqual([expect.closeTo(0.0569, 4), expect.closeTo(0.3404, 4)]);
  });
  test("95 of 100 intervals hold the truth", () => {
    const random = draws(29);
    let held = 0;
    const runs = 2_000;
    for (let run = 0; run < runs; run++) {
      // Right with 0.5 before; then three of ten that were wrong are right, one of ten that were right is wrong: + 0.1.
      const pairs = Array.from({ length: 80 }, () => {
        const before = random() < 0.5 ? 1 : 0;
        const changed = random() < (before ? 0.1 : 0.3);
        return [before, changed ? 1 - before : before] as const;
      });
      const { low, high } = differenceInterval(
        { shares: pairs.map(([a]) => a), samples: 1 },
        { shares: pairs.map(([, b]) => b), samples: 1 },
      )!;
      if (low <= 0.1 && 0.1 <= high) held++;
    }
    expect(held / runs).toBeGreaterThan(0.93);
    expect(held / runs).toBeLessThan(0.97);
  });
});

test("a row that was not asked counts as wrong in every figure", () => {
  const asked = { row: 0, correct: 2, answered: 2, inFormat: 2, truncated: 1, made: 2, tokens: 10 };
  const error = { code: "context_length_exceeded", message: "long" } as const;
  const skipped = { row: 1, correct: 0, answered: 0, inFormat: 0, truncated: 0, made: 0, tokens: 0, error };
  expect(summarise([skipped, asked], 2)).toMatchObject({
    accuracy: 0.5,
    pass_at_k: { 1: 0.5, 2: 0.5 },
    answered: 0.5,
    truncated: 0.25,
    mean_completion_tokens: 5,
    counts: { rows: 2, samples: 4, correct: 2, errors: { context_length_exceeded: 1 }, completion_tokens: 10 },
  });
});
