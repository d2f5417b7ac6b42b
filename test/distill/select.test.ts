import { describe, expect, it } from "vitest";
import { createNearDuplicates } from "../../src/datasets/minhash.ts";
import { isLeaked } from "../../src/distill/leak.ts";
import { failing, needsScore, type Predicate } from "../../src/distill/predicate.ts";
import type { QuestionRecord, SampleRecord } from "../../src/distill/records.ts";
import { createSelection } from "../../src/distill/select.ts";
import { fail } from "../../src/errors.ts";

const NO_FILTERS = { format: false, fits_context: null, dedupe: null, not_leaked: null };
const SOLUTION = { solution: "42" };

function sample(number: number, reward: number, changes: Partial<SampleRecord> = {}): SampleRecord {
  return {
    sample: number,
    explanation: `explanation ${number}`,
    tokens: 10,
    finish: "stop",
    violations: [],
    score: {
      reward,
      solution: { logprob_mean: reward / 2, logprob_min: reward, reward },
      kl: { mean: 0.1, max: 0.5, reward: -0.3 },
      penalty: 0,
      text_tokens: 50,
      tokens: { thought: { ends: [], logprobs: [], kl: [] }, solution: { ends: [], logprobs: [] } },
    },
    ...changes,
  };
}

const record = (row: number, samples: SampleRecord[]): QuestionRecord => ({
  row,
  samples,
  surprise: { teacher: null, student: { mean: 3, max: 3, tokens: 1 } },
});

describe("selection", () => {
  it.each([
    ["raw", ["taken", "not_chosen", "not_chosen"]],
    ["best", ["not_chosen", "taken", "not_chosen"]],
    ["all", ["taken", "taken", "taken"]],
  ] as const)("%s", (rule, expected) => {
    const selection = createSelection({ select: { rule, where: null }, filters: NO_FILTERS, target_rows: null }, null);
    const { verdicts } = selection.take(record(0, [sample(0, -2), sample(1, -1), sample(2, -3)]), SOLUTION);
    expect(verdicts.map(({ reason }) => reason ?? "taken")).toEqual(expected);
    expect(verdicts.map((verdict) => verdict.sample.sample)).toEqual([0, 1, 2]);
  });

  it("names the filter that a sample does not pass, in a fixed order", () => {
    const filters = { format: true, fits_context: 60, dedupe: null, not_leaked: 0.5 };
    const where = { reward: { gte: -2 } };
    const selection = createSelection({ select: { rule: "all", where }, filters, target_rows: null }, null);
    const long = sample(3, -1);
    long.score!.text_tokens = 61;
    const error = fail("invalid_value", "no token of its own").toBody();
    const longest = fail("context_length_exceeded", "too long to read").toBody();
    const { verdicts } = selection.take(
      record(0, [
        sample(0, -1, { violations: ["missing_closing_tag"] }),
        sample(1, -1, { explanation: "It is 42, and that is why we count on and on and on." }),
        sample(2, -1, { score: null, error }),
        long,
        sample(4, -2.5),
        sample(5, -2),
        sample(6, -2, { score: null, error: longest }),
      ]),
      SOLUTION,
    );
    expect(verdicts.map(({ reason, detail }) => [reason, detail])).toEqual([
      ["format", "missing_closing_tag"],
      ["solution_leaked", undefined],
      ["unscored", "no token of its own"],
      ["too_long", "61 tokens, at most 60"],
      ["below_threshold", "reward is -2.5, not gte -2"],
      [null, undefined],
      ["too_long", "too long to read"],
    ]);
    expect(selection.rejected).toEqual({ format: 1, solution_leaked: 1, unscored: 1, too_long: 2, below_threshold: 1 });
  });

  it("takes the next best one where the best is nearly a copy of an accepted one", () => {
    const selection = createSelection(
      { select: { rule: "best", where: null }, filters: { ...NO_FILTERS, dedupe: 0.8 }, target_rows: null },
      createNearDuplicates({ threshold: 0.8 }),
    );
    const text = "first add the two digits then carry the one and write down what is left of the sum";
    const other = "something else altogether was said here about it and nobody had heard of that";
    selection.take(record(0, [sample(0, -1, { explanation: text })]), SOLUTION);
    const again = [sample(0, -1, { explanation: text }), sample(1, -2, { explanation: other })];
    const { verdicts } = selection.take(record(1, again), SOLUTION);
    expect(verdicts.map(({ reason }) => reason)).toEqual(["near_duplicate", null]);
  });

  it("stops at the target and says what was left over", () => {
    const all = { select: { rule: "all", where: null }, filters: NO_FILTERS, target_rows: 3 } as const;
    const selection = createSelection(all, null);
    selection.take(record(0, [sample(0, -1), sample(1, -1)]), SOLUTION);
    expect(selection.full).toBe(false);
    const { verdicts } = selection.take(record(1, [sample(0, -1), sample(1, -1)]), SOLUTION);
    expect(verdicts.map(({ reason }) => reason)).toEqual([null, "not_needed"]);
    expect([selection.accepted, selection.full]).toEqual([3, true]);
  });

  it("has no samples of a question that could not be asked", () => {
    const all = { select: { rule: "all", where: null }, filters: NO_FILTERS, target_rows: null } as const;
    const error = fail("context_length_exceeded", "the prompt is too long").toBody();
    const selected = createSelection(all, null).take(
      { row: 0, samples: [], surprise: { teacher: null, student: null }, error },
      SOLUTION,
    );
    expect(selected).toEqual({
      verdicts: [],
      unusable: { reason: "unusable_question", detail: "the prompt is too long" },
    });
  });
});

describe("a predicate", () => {
  const parts = { reward: -1, "kl.mean": 0.2, "kl.max": null, tokens: 30 };
  it.each<[Predicate, boolean]>([
    [{}, true],
    [{ reward: { gte: -1 } }, true],
    [{ reward: { gt: -1 } }, false],
    [{ reward: { gte: -2, lte: -0.5 }, tokens: { lt: 31 } }, true],
    [{ reward: { gte: -2 }, tokens: { eq: 31 } }, false],
    [{ "kl.max": { lt: 100 } }, false],
    [{ not: { "kl.max": { lt: 100 } } }, true],
    [{ any: [{ reward: { gt: 0 } }, { "kl.mean": { lt: 0.3 } }] }, true],
    [{ any: [{ reward: { gt: 0 } }, { "kl.mean": { lt: 0.1 } }] }, false],
    [{ any: [] }, true],
    [{ all: [{ reward: { lt: 0 } }, { not: { tokens: { gt: 10 } } }] }, false],
  ])("%j passes: %s", (predicate, passes) => {
    expect(failing(predicate, parts) === null).toBe(passes);
  });

  it("knows whether it needs a student", () => {
    expect(needsScore({ tokens: { lt: 5 } })).toBe(false);
    expect(needsScore({ any: [{ tokens: { lt: 5 } }, { not: { reward: { gt: 0 } } }] })).toBe(true);
  });
});

describe("a leaked solution", () => {
  it.each([
    ["so 15 and 5 make 20", "20", 0.5, false],
    ["20 is what we want: 15 and 5", "20", 0.5, true],
    ["120 and 203 are not it, and then 20", "20", 0.5, false],
    ["the answer  is\n x = 3 because of this and that and more", "x = 3", 0.5, true],
    ["x = 3", "x = 3", 1, true],
    ["anything", " ", 1, false],
    ["\\frac{1}{2} at once, then a long justification follows here", "\\frac{1}{2}", 0.5, true],
  ] as const)("%j gives %j away within %d: %s", (explanation, solution, share, leaked) => {
    expect(isLeaked(explanation, solution, share)).toBe(leaked);
  });
});
