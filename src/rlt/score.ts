/**
 * Scores one explanation: what the student makes of it, and how far the teacher's words lie from the student's own.
 * A composition of `encodePrompt` and `logprobs`; numbers and formulas are those of method.md.
 */
import { allSettledOrThrow } from "../concurrency.ts";
import type { LogprobsResult } from "../engine/engine.ts";
import { compare, estimate } from "./compare.ts";
import { type FormatReport, judgeFormat, parseCompletion } from "./completion.ts";
import { klBound, solutionBound } from "./error-bound.ts";
import type { StudentFormat, TeacherFormat } from "./formats.ts";
import { type Estimator, k1 } from "./kl.ts";
import { THOUGHT, teacherText } from "./prompts.ts";
import { readSampled } from "./read-sampled.ts";
import { type Asking, askingOf, readByStudent, type ScoringModel, scoreSpan, side } from "./reading.ts";
import {
  type Coefficients,
  emptyKl,
  type KlReward,
  klReward,
  type SolutionReward,
  solutionReward,
  totalReward,
} from "./reward.ts";
import { compareSampled, type Sampled } from "./sampled.ts";
import { controlTokens, describeTokens, type ScoredToken, type ThoughtToken } from "./scored-tokens.ts";

export interface ScoreInput {
  question: string;
  solution: string;
  /** The teacher's raw output, closing tag included if it wrote one. */
  completion: string;
  /** The tag `completion` is cut at. */
  close: string;
  /** What the teacher drew when it wrote `completion`, at the temperature of the score: it is not asked again. */
  sampled?: Sampled;
}

export interface ScoreOptions extends Asking {
  temperature: number;
  coefficients: Coefficients;
  estimator: Estimator;
  /** Ranks kept by `topk_tail`. */
  topK: number;
  /** The reference's numbers: exact ones, or `unsupported_by_backend`. */
  parity: boolean;
  /** Also report per-token values (rank and entropy cost a little more). */
  tokens: boolean;
  /** Per-token values all the same, without those that cost more (null). */
  values?: boolean;
}

export type Warning =
  /** k1 pays for words the teacher itself finds unlikely; this text was not sampled here (method.md). */
  | "foreign_text"
  /** Log-probs at this temperature are estimates: `errorBound` says how far the reward may be wrong. */
  | "estimated_logprobs"
  /** Every token of the explanation merged with a tag: nothing to compare. */
  | "no_thought_token";

export interface Score {
  reward: number;
  /** The exact reward lies within ± this; null: it is exact. */
  errorBound: number | null;
  solution: SolutionReward;
  kl: (KlReward & { estimator: Estimator }) | null;
  format: FormatReport;
  /** The student's tokens of the explanation, over which the KL's mean is taken. */
  thoughtTokens: number;
  tokensFrom: "ids" | "text";
  warnings: Warning[];
  tokens?: { solution: ScoredToken[]; thought: ThoughtToken[] };
  /** Of the whole text, as the student reads it. */
  textTokens: number;
  /** Tokens that went through a model to compute this score. */
  scoredTokens: number;
  /** Of them, how many the prefix caches had. */
  cachedTokens: number;
}

/** Throws `context_length_exceeded`, `estimator_needs_shared_tokenizer`, `invalid_value` (a solution without a token). */
export async function scoreExplanation(
  student: ScoringModel<StudentFormat>,
  teacher: ScoringModel<TeacherFormat> | null,
  input: ScoreInput,
  options: ScoreOptions,
): Promise<Score> {
  const parsed = parseCompletion(input.completion, input.close);
  const controls = teacher
    ? [...controlTokens(student.text), ...controlTokens(teacher.text)]
    : controlTokens(student.text);
  const format = judgeFormat(parsed, student.format, controls, options.parity);
  const sameTokens = input.sampled && student.text.tokenizerHash === teacher?.text.tokenizerHash;
  const read = sameTokens
    ? await readSampled(student, input.question, input.solution, parsed.thought, input.sampled!.ids)
    : await readByStudent(student, input.question, input.solution, parsed.thought);
  const written =
    teacher && parsed.thought !== "" && !input.sampled
      ? await side(teacher, teacherText(teacher.format, input.question, input.solution, parsed.thought), THOUGHT)
      : null;

  const drawn =
    teacher && parsed.thought !== "" && input.sampled
      ? compareSampled(teacher.text, input.sampled, parsed.thought, read)
      : null;

  // Both sides have come to rest when this throws: the caller gives the models back then.
  const [studentScores, compared] = await allSettledOrThrow([
    scoreSpan(
      student,
      read.encoded,
      { from: Math.min(read.thought.from, read.solution.from), to: read.solution.to },
      { temperature: options.temperature, tokens: options.tokens, exact: options.parity, ...askingOf(options) },
    ),
    teacher && written ? compare(teacher, student, written, read, { ...options, exact: options.parity }) : drawn,
  ]);
  const at = (token: number): number => studentScores.logprobs[token - studentScores.from] as number;
  const solution = solutionReward(
    studentScores.logprobs.subarray(read.solution.from - studentScores.from, read.solution.to - studentScores.from),
    options.coefficients,
  );

  const { errorBound } = studentScores;
  const boundAt = errorBound ? (token: number): number => errorBound[token - studentScores.from] as number : null;
  let bound = boundAt && solutionBound(boundAt, read.solution, options.coefficients);

  const warnings: Warning[] = [];
  let kl: Score["kl"] = null;
  let klPart: KlReward | null = null;
  let values: Float64Array | null = null;
  if (teacher && compared) {
    values = compared.values ?? estimate(options.estimator, compared.stretches, compared.teacherLogprobs, at);
    if (values.length > 0) {
      const tokens = read.thought.to - read.thought.from;
      klPart = klReward(values, tokens, options.coefficients);
      if (!compared.values && (boundAt || compared.teacherBounds)) {
        const differences = k1(compared.stretches, compared.teacherLogprobs, at);
        const what = { stretches: compared.stretches, values, tokens, estimator: options.estimator };
        bound = (bound ?? 0) + klBound(what, differences, compared.teacherBounds, boundAt, options.coefficients);
      }
      kl = { ...klPart, estimator: options.estimator };
      if (options.estimator === "k1" && !drawn) warnings.push("foreign_text");
    } else {
      klPart = emptyKl(options.coefficients);
      warnings.push("no_thought_token");
    }
  } else if (teacher) {
    klPart = emptyKl(options.coefficients);
    if (options.parity) kl = { ...klPart, estimator: options.estimator };
  }

  if (bound !== null) warnings.push("estimated_logprobs");
  return {
    reward: totalReward(solution, klPart, format),
    errorBound: bound,
    solution,
    kl,
    format,
    thoughtTokens: read.thought.to - read.thought.from,
    tokensFrom: drawn ? "ids" : "text",
    warnings,
    textTokens: read.encoded.ids.length,
    scoredTokens: read.encoded.ids.length + (written?.encoded.ids.length ?? 0),
    cachedTokens: studentScores.cachedTokens + (compared?.cachedTokens ?? 0),
    ...(options.tokens || options.values
      ? { tokens: describeTokens(student.text, read, studentScores, compared, values) }
      : {}),
  };
}

/** The student's view of a solution after reading only some text. */
export interface Belief extends Pick<LogprobsResult, "logprobs" | "errorBound" | "cachedTokens"> {
  /** Mean log-prob of the solution's tokens. */
  mean: number;
  /** Log-prob of each of them by the offset of its end. */
  byEnd: Map<number, number>;
  scoredTokens: number;
}

/** After reading only `thought`. */
export async function solutionBelief(
  student: ScoringModel<StudentFormat>,
  input: { question: string; solution: string; thought: string },
  options: Asking & Pick<ScoreOptions, "temperature">,
): Promise<Belief> {
  const read = await readByStudent(student, input.question, input.solution, input.thought);
  const { temperature } = options;
  const scores = await scoreSpan(student, read.encoded, read.solution, { temperature, ...askingOf(options) });
  const byEnd = new Map<number, number>();
  let total = 0;
  scores.logprobs.forEach((logprob, i) => {
    total += logprob;
    byEnd.set((read.encoded.ends[read.solution.from + i] as number) - read.solutionStart, logprob);
  });
  return { ...scores, mean: total / scores.logprobs.length, byEnd, scoredTokens: read.encoded.ids.length };
}
