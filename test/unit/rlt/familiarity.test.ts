/** How familiar a problem is, against sums over the fake model's own distribution. */
import { describe, expect, test } from "vitest";
import { fail } from "../../../src/errors.ts";
import { type Familiarity, measureFamiliarity, overall, problemSurprise } from "../../../src/rlt/familiarity.ts";
import { studentFormat, type TeacherFormat, teacherFormat } from "../../../src/rlt/formats.ts";
import type { ScoringModel } from "../../../src/rlt/reading.ts";
import { DEFAULT_COEFFICIENTS } from "../../../src/rlt/reward.ts";
import { type ScoreOptions, scoreExplanation, solutionBelief } from "../../../src/rlt/score.ts";
import { createFakeEngine, createFakeText, encodeChat, encodePlain, fakeLogprobs } from "../../api/fakes.ts";

const problem = { question: "2+3?", solution: "it is 5" };
const asking = { client: "test", priority: "interactive", signal: new AbortController().signal } as const;
const options: ScoreOptions = {
  ...asking,
  temperature: 0.7,
  coefficients: DEFAULT_COEFFICIENTS,
  estimator: "k1",
  topK: 0,
  parity: false,
  tokens: false,
};
const plain = { system: null, prefix: "[", close: "]", solution_padding: "" };

function teacherOf(
  format: TeacherFormat = teacherFormat({ ...plain, prefix: "[{solution}](" }),
  engine = createFakeEngine({ contextLength: 8192 }),
): ScoringModel<TeacherFormat> & { engine: typeof engine } {
  return { engine, text: createFakeText(), adapter: null, format };
}
const student = () => ({
  engine: createFakeEngine({ contextLength: 8192 }),
  text: createFakeText(),
  adapter: null,
  format: studentFormat(plain),
});

/** −log p of the tokens of `text` after a chat and the beginning of the assistant's turn. */
function surprises(before: string, text: string): number[] {
  const prefix = encodeChat([{ role: "user", content: problem.question }], before);
  return encodePlain(text).map((id, i, ids) => -fakeLogprobs([...prefix, ...ids.slice(0, i)], 0.7)[id]!);
}
const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

describe("the teacher's surprise", () => {
  test("is that of the solution's tokens after the question, and nothing behind them is computed", async () => {
    const teacher = teacherOf();
    const {
      teacher: surprise,
      student: none,
      scoredTokens,
    } = await problemSurprise({ teacher, student: null }, problem, options);
    const wanted = surprises("[", problem.solution);
    expect(surprise).toEqual({
      mean: expect.closeTo(mean(wanted), 5),
      max: expect.closeTo(Math.max(...wanted), 5),
      tokens: wanted.length,
    });
    expect(none).toBeNull();
    const [sequence] = teacher.engine.scored[0]!.sequences;
    expect(sequence!.ids).toHaveLength(sequence!.to!);
    expect(scoredTokens).toBe(sequence!.to);
  });

  test("is unknown where the solution is read twice, or in an instruction, or merges with the text around it", async () => {
    const formats = [
      teacherFormat({ ...plain, prefix: "[{solution}]{solution}" }),
      teacherFormat({ ...plain, user: "{question} {solution}" }),
      { ...teacherFormat(plain), prefix: "the{solution}" },
    ];
    for (const [i, format] of formats.entries()) {
      const teacher = teacherOf(format);
      // "the " is one token of the fake's.
      const solution = i === 2 ? " " : problem.solution;
      expect((await problemSurprise({ teacher, student: null }, { ...problem, solution }, options)).teacher).toBeNull();
      expect(teacher.engine.scored).toEqual([]);
    }
  });

  test("is unknown where the engine cannot report it; what fails otherwise is an error", async () => {
    const blind = createFakeEngine({ contextLength: 8192, capabilities: { logprobs: false } });
    const asked = async (engine = blind) =>
      problemSurprise({ teacher: teacherOf(undefined, engine), student: null }, problem, options);
    expect(await asked()).toEqual({ teacher: null, student: null, scoredTokens: 0, cachedTokens: 0 });
    const refusing = (error: Error) => createFakeEngine({ contextLength: 8192, refuse: () => error });
    expect((await asked(refusing(fail("unsupported_by_backend", "not at 0.7")))).teacher).toBeNull();
    await expect(asked(refusing(fail("engine_failed", "dead")))).rejects.toMatchObject({ code: "engine_failed" });
  });

  test("an estimate says how far it may be wrong", async () => {
    const exact = createFakeEngine({ contextLength: 8192 });
    const logprobs: typeof exact.logprobs = async (request) =>
      (await exact.logprobs(request)).map((result) => ({
        ...result,
        errorBound: result.logprobs.map((_, i) => i / 8),
      }));
    const { teacher } = await problemSurprise(
      { teacher: teacherOf(undefined, { ...exact, logprobs }), student: null },
      problem,
      options,
    );
    expect(teacher!.error_bound).toBe((teacher!.tokens - 1) / 8);
  });
});

test("one explanation: the numbers are those of its score and of the solution without it", async () => {
  const models = { teacher: teacherOf(), student: student() };
  const input = { ...problem, completion: "add the two]", close: "]" };
  const measured = await measureFamiliarity(models, input, options);
  const score = await scoreExplanation(models.student, models.teacher, input, options);
  const without = await solutionBelief(models.student, { ...problem, thought: "" }, options);
  const bare = surprises("[]", problem.solution);
  expect(measured).toMatchObject({
    kl_mean: score.kl!.mean,
    kl_max: score.kl!.max,
    kl_tokens: encodePlain("add the two").length,
    uplift: expect.closeTo(score.solution.logprob_mean - without.mean, 10),
    student_surprise: {
      mean: expect.closeTo(mean(bare), 5),
      max: expect.closeTo(Math.max(...bare), 5),
      tokens: bare.length,
    },
  });
  const { scoredTokens } = await problemSurprise(models, problem, options);
  expect(measured.scoredTokens).toBe(score.scoredTokens + scoredTokens);
  const empty = await measureFamiliarity(models, { ...input, completion: "]" }, options);
  expect(empty).toMatchObject({ kl_mean: null, kl_max: null, kl_tokens: 0, uplift: expect.closeTo(0, 6) });
});

test("all explanations of a problem: the KL over all their tokens, the mean uplift, and what could not be scored left out", () => {
  const surprise = { mean: 1, max: 2, tokens: 3 };
  const one = (
    kl_mean: number | null,
    kl_max: number | null,
    kl_tokens: number,
    uplift: number | null,
  ): Familiarity => ({
    teacher_surprise: surprise,
    student_surprise: null,
    kl_mean,
    kl_max,
    kl_tokens,
    uplift,
  });
  expect(overall([one(1, 5, 1, 0.5), one(null, null, 0, null), one(2, 3, 3, 1.5)])).toEqual(one(1.75, 5, 4, 1));
  expect(overall([one(null, null, 0, null)])).toEqual(one(null, null, 0, null));
});
