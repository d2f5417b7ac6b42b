import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { judgeFormat, parseCompletion } from "../../../src/rlt/completion.ts";
import { studentFormat, teacherFormat } from "../../../src/rlt/formats.ts";
import { k1, k3, topkTail } from "../../../src/rlt/kl.ts";
import { DEFAULT_COEFFICIENTS, emptyKl, klReward, solutionReward, totalReward } from "../../../src/rlt/reward.ts";

interface Case {
  solution: string;
  completion: string;
  reward: number;
  solution_reward: number;
  kl_reward: number;
  format_reward: number;
  solution_logprob_mean: number;
  solution_logprob_min: number;
  kl_mean: number;
  kl_max: number;
  think_kl: number[];
  solution_logprobs: number[];
  estimators?: { k3: number[] };
}
const golden = JSON.parse(readFileSync(new URL("../../golden/rewards.json", import.meta.url), "utf8")) as {
  pairs: { teacher: string; student: string; cases: Case[] }[];
};
const stratos = { teacher: teacherFormat("stratos"), student: studentFormat("stratos") };

describe("the reward of the reference code from its per-token values", () => {
  for (const { teacher, student, cases } of golden.pairs) {
    test.each(cases.map((c, i) => [i + 1, c] as const))(`${teacher} → ${student}, case %i`, (_, c) => {
      const parsed = parseCompletion(c.completion, stratos.teacher.close);
      const format = judgeFormat(parsed, stratos.student, ["<|im_end|>"], true);
      const solution = solutionReward(c.solution_logprobs, DEFAULT_COEFFICIENTS);
      const kl =
        parsed.thought === ""
          ? emptyKl(DEFAULT_COEFFICIENTS)
          : klReward(c.think_kl, c.think_kl.length, DEFAULT_COEFFICIENTS);
      expect(solution.logprob_mean).toBeCloseTo(c.solution_logprob_mean, 4);
      expect(solution.logprob_min).toBeCloseTo(c.solution_logprob_min, 4);
      expect(solution.reward).toBeCloseTo(c.solution_reward, 4);
      expect(kl.reward).toBeCloseTo(c.kl_reward, 4);
      expect(format.penalty).toBe(c.format_reward);
      expect(totalReward(solution, kl, format)).toBeCloseTo(c.reward, 4);
      if (c.estimators) {
        const values = k3(Float64Array.from(c.think_kl));
        c.estimators.k3.forEach((expected, i) => {
          // The stored inputs are rounded to 1e-6 and e^−kl multiplies that rounding.
          expect(Math.abs((values[i] as number) - expected)).toBeLessThan(1e-5 * Math.max(1, expected));
        });
      }
    });
  }
});

describe("format violations", () => {
  const judge = (completion: string, parity = false) =>
    judgeFormat(parseCompletion(completion, stratos.teacher.close), stratos.student, ["<|im_end|>"], parity);
  test("each costs what the closed list says", () => {
    expect(judge("fine<|end_of_explanation|>")).toEqual({ ok: true, penalty: 0, violations: [] });
    expect(judge("no end")).toEqual({ ok: false, penalty: -1, violations: ["missing_closing_tag"] });
    expect(judge("<|end_of_explanation|>")).toMatchObject({ penalty: -1, violations: ["empty_explanation"] });
    expect(judge("<|end_of_explanation|>", true)).toMatchObject({ ok: true, penalty: 0 });
    expect(judge("a <|end_of_thought|> b<|end_of_explanation|>").violations).toEqual(["student_tag"]);
    expect(judge("a <|im_end|> b<|end_of_explanation|>").violations).toEqual(["control_token_text"]);
    expect(judge("a<|end_of_explanation|> more")).toEqual({ ok: true, penalty: 0, violations: ["trailing_text"] });
  });
  test("only the text before the first closing tag is the explanation, never trimmed", () => {
    expect(parseCompletion(" a \n<|end|> b <|end|>", "<|end|>")).toEqual({
      thought: " a \n",
      closed: true,
      trailing: " b <|end|>",
    });
  });
});

describe("estimators", () => {
  const tokens = (n: number) =>
    Array.from({ length: n }, (_, i) => ({ teacher: { from: i, to: i + 1 }, student: { from: i, to: i + 1 } }));
  const of = (values: number[]) => (token: number) => values[token] as number;
  test("k1 is the difference, summed over stretches", () => {
    expect([...k1(tokens(2), of([-1, -2]), of([-3, -1]))]).toEqual([2, -1]);
    const merged = [{ teacher: { from: 0, to: 2 }, student: { from: 0, to: 1 } }];
    expect([...k1(merged, of([-1, -2]), of([-5]))]).toEqual([2]);
  });
  test("topk_tail equals the full KL when k covers all but one id, and is below it otherwise", () => {
    const p = [0.5, 0.3, 0.15, 0.05];
    const q = [0.25, 0.25, 0.4, 0.1];
    const full = p.reduce((sum, pi, i) => sum + pi * Math.log(pi / (q[i] as number)), 0);
    const logs = (values: number[], k: number) => Float32Array.from(values.slice(0, k), Math.log);
    expect(topkTail(logs(p, 3), logs(q, 3), 3)[0]).toBeCloseTo(full, 5);
    const coarse = topkTail(logs(p, 1), logs(q, 1), 1)[0] as number;
    expect(coarse).toBeGreaterThan(0);
    expect(coarse).toBeLessThan(full);
  });
});
