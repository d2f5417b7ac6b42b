/** The bounds of what is estimated from a few alternatives hold, whatever the distribution. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { estimateAt, leastOf, rescale } from "../../../src/engine/openai/temperature.ts";

const TEMPERATURES = [0.3, 0.7, 1, 1.5, 3];
/** Numbers travel as float32, so masses near 1 are known to about so many nats. */
const ROUNDING = 2e-5;

function logSoftmax(logits: readonly number[], temperature: number): Float64Array {
  const scaled = Float64Array.from(logits, (logit) => logit / temperature);
  const most = scaled.reduce((a, b) => Math.max(a, b));
  const logSum = most + Math.log(scaled.reduce((sum, logit) => sum + Math.exp(logit - most), 0));
  return scaled.map((logit) => logit - logSum);
}

interface Reported {
  ids: number[];
  logprobs: Float32Array;
  own: number;
}

/** What a server reports: the k most likely ids and the text's own, in falling order. */
function report(row: Float64Array, k: number, own: number): Reported {
  const order = [...row.keys()].sort((a, b) => row[b]! - row[a]!);
  const best = order.slice(0, k);
  const ids = best.includes(own) ? best : [...best, own];
  return { ids, logprobs: Float32Array.from(ids, (id) => row[id]!), own };
}

function estimate({ ids, logprobs, own }: Reported, vocabSize: number, temperature: number, error = 0) {
  const top = { ids: Int32Array.from(ids), logprobs };
  const logprob = logprobs[ids.indexOf(own)]!;
  const { at, bound } = estimateAt(top, { id: own, logprob }, { vocabSize, temperature, error });
  return { logprob: at(logprob), bound };
}

/** From nearly uniform to nearly certain, with ties and with tails that are all alike. */
const logitsOf = fc
  .record({
    seed: fc.integer({ min: 1, max: 2 ** 30 }),
    length: fc.integer({ min: 2, max: 3000 }),
    spread: fc.constantFrom(0, 0.1, 1, 3, 10, 40),
    steps: fc.constantFrom(0, 1, 8),
    favourite: fc.constantFrom(0, 5, 15, 40, 900),
  })
  .map(({ seed, length, spread, steps, favourite }) => {
    let state = seed;
    const next = (): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return state / 2 ** 32;
    };
    const logits = Array.from({ length }, () => {
      const value = next();
      return spread * (steps > 0 ? Math.round(value * steps) / steps : value);
    });
    logits[Math.floor(next() * length)]! += favourite;
    return logits;
  });

test("the true log-prob lies within the bound of the estimate, also of an id that is not among the most likely", () => {
  fc.assert(
    fc.property(logitsOf, fc.integer({ min: 1, max: 20 }), fc.nat(), (logits, k, pick) => {
      const row = logSoftmax(logits, 1);
      const own = pick % logits.length;
      for (const temperature of TEMPERATURES) {
        const { logprob, bound } = estimate(report(row, k, own), logits.length, temperature);
        const truth = logSoftmax(logits, temperature)[own]!;
        const rounding = ROUNDING + Math.abs(row[own]!) * 2e-7 * (1 + 1 / temperature);
        expect(Math.abs(logprob - truth)).toBeLessThanOrEqual(bound + rounding);
        expect(bound).toBeGreaterThanOrEqual(0);
        expect(Number.isFinite(bound)).toBe(true);
        if (temperature === 1) expect(bound).toBe(0);
      }
    }),
    { numRuns: 200 },
  );
});

test("where what is reported may itself be wrong, the bound holds for all that it may be", () => {
  const wrong = fc.record({
    error: fc.constantFrom(0.001, 0.05, 0.5),
    share: fc.double({ min: -1, max: 1, noNaN: true }),
  });
  fc.assert(
    fc.property(logitsOf, fc.integer({ min: 1, max: 20 }), fc.nat(), wrong, (logits, k, pick, { error, share }) => {
      const row = logSoftmax(logits, 1);
      const own = pick % logits.length;
      const reported = report(row, k, own);
      // Estimates of one position keep their order: it is their normaliser that is wrong.
      const logprobs = reported.logprobs.map((logprob) => logprob + error * share);
      for (const temperature of TEMPERATURES) {
        const { logprob, bound } = estimate({ ...reported, logprobs }, logits.length, temperature, error);
        const truth = logSoftmax(logits, temperature)[own]!;
        const rounding = ROUNDING + Math.abs(row[own]!) * 2e-7 * (1 + 1 / temperature);
        expect(Math.abs(logprob - truth)).toBeLessThanOrEqual(bound + rounding);
      }
    }),
    { numRuns: 200 },
  );
});

test("a distribution that is reported whole is rescaled exactly", () => {
  const row = logSoftmax([3, 1, 0.5, -2, -2], 1);
  for (const temperature of TEMPERATURES) {
    const { logprob, bound } = estimate(report(row, 20, 3), 5, temperature);
    expect(bound).toBe(0);
    expect(logprob).toBeCloseTo(logSoftmax([3, 1, 0.5, -2, -2], temperature)[3]!, 5);
  }
});

test("the bound is of use: twenty alternatives of a steep distribution leave little open", () => {
  const logits = Array.from({ length: 2000 }, (_, rank) => -1.5 * Math.log(rank + 1));
  const bounds = TEMPERATURES.map((temperature) => {
    return estimate(report(logSoftmax(logits, 1), 20, 0), logits.length, temperature).bound;
  });
  expect(bounds[1]).toBeLessThan(0.06);
  expect(bounds[0]).toBeLessThan(0.005);
  expect(bounds[2]).toBe(0);
  // Of a model that is sure of its token hardly anything is left to others, whatever the temperature makes of that.
  const sure = logits.map((_, id) => (id === 0 ? 40 : 0));
  expect(estimate(report(logSoftmax(sure, 1), 20, 0), logits.length, 3).bound).toBeLessThan(0.01);
});

test("more alternatives never make the bound worse", () => {
  const logits = Array.from({ length: 500 }, (_, rank) => -Math.log(rank + 1));
  const row = logSoftmax(logits, 1);
  let before = Number.POSITIVE_INFINITY;
  for (const k of [1, 2, 5, 10, 20]) {
    const { bound } = estimate(report(row, k, 0), logits.length, 0.7);
    expect(bound).toBeLessThanOrEqual(before);
    before = bound;
  }
});

test("the text's own id at the end says nothing about the ids that are not reported", () => {
  expect(leastOf([4, 9, 2], [-1, -2, -9], 2)).toBe(-2);
  expect(leastOf([4, 9, 2], [-1, -2, -9], 4)).toBe(-9);
  expect(leastOf([4], [-1], 4)).toBe(-1);
});

test("alternatives that sum to more than 1 are known no better than that", () => {
  const bound = (first: number): number => {
    const known = Float32Array.of(Math.log(first), Math.log(0.3), Math.log(0.1));
    return rescale(known, { least: known[2]!, vocabSize: 1000, temperature: 1.5 }).bound;
  };
  // A server cannot make its estimates look better by reporting too much.
  expect(bound(0.61)).toBeGreaterThan(10 * bound(0.6));
  expect(bound(0.619)).toBeGreaterThan(bound(0.61));
});
