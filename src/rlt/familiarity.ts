/**
 * How far a problem lies from what teacher and student know, in nats, so that a reader of an explanation can see when to
 * trust it (method.md, "How familiar a problem is"):
 *
 * - surprise = −log p(s_i | q, s_<i), mean and max over the solution's tokens: the teacher's in its own prompt, where the
 *   solution follows the question; the student's after an empty explanation.
 * - kl = mean and max over the explanation's tokens, by the estimator of the score.
 * - uplift = mean log p(s_i | q, t, s_<i) − mean log p(s_i | q, s_<i) under the student: what the explanation bought.
 *
 * Numbers only: where "too far" begins depends on the models and the data, so nothing here judges.
 */
import { allSettledOrThrow } from "../concurrency.ts";
import type { LogprobsResult } from "../engine/engine.ts";
import { PreceptorError } from "../errors.ts";
import type { StudentFormat, TeacherFormat } from "./formats.ts";
import { SOLUTION, teacherPrompt } from "./prompts.ts";
import { type Asking, askingOf, predicted, type ScoringModel, scoreSpan } from "./reading.ts";
import { type Score, type ScoreInput, type ScoreOptions, scoreExplanation, solutionBelief } from "./score.ts";
import { tokensInside } from "./spans.ts";

/** Negative log-probs of a solution's tokens. */
export interface Surprise {
  mean: number;
  max: number;
  /** Number of tokens, ≥ 1. */
  tokens: number;
  /** Where log-probs are estimates: the exact mean and max lie within ± this. */
  error_bound?: number | undefined;
}

/** Of one explanation, or of all that were written for one problem. Null: not measured, or not measurable. */
export interface Familiarity {
  teacher_surprise: Surprise | null;
  student_surprise: Surprise | null;
  kl_mean: number | null;
  kl_max: number | null;
  /** The student's tokens that `kl_mean` is taken over. */
  kl_tokens: number;
  uplift: number | null;
}

/** What depends on question and solution alone: measured once, whatever is written about them. */
export interface ProblemSurprise {
  teacher: Surprise | null;
  student: Surprise | null;
  /** Tokens that went through a model for it, and how many of them the prefix caches had. */
  scoredTokens: number;
  cachedTokens: number;
}

export interface FamiliarityPair {
  teacher: ScoringModel<TeacherFormat>;
  student: ScoringModel<StudentFormat> | null;
}

type Problem = Pick<ScoreInput, "question" | "solution">;
type Options = Asking & Pick<ScoreOptions, "temperature">;

/** Everything about one explanation. Throws as `scoreExplanation` does. */
export async function measureFamiliarity(
  { teacher, student }: FamiliarityPair & { student: ScoringModel<StudentFormat> },
  input: ScoreInput,
  options: ScoreOptions,
): Promise<Familiarity & Pick<ProblemSurprise, "scoredTokens" | "cachedTokens">> {
  const [surprise, score] = await allSettledOrThrow([
    problemSurprise({ teacher, student }, input, options),
    scoreExplanation(student, teacher, input, options),
  ]);
  return {
    ...familiarityOf(surprise, score),
    scoredTokens: surprise.scoredTokens + score.scoredTokens,
    cachedTokens: surprise.cachedTokens + score.cachedTokens,
  };
}

/** Throws what the engines throw, and `invalid_value` for a solution without a token of its own. */
export async function problemSurprise(
  { teacher, student }: FamiliarityPair,
  { question, solution }: Problem,
  options: Options,
): Promise<ProblemSurprise> {
  const [read, belief] = await allSettledOrThrow([
    teacherSurprise(teacher, { question, solution }, options),
    student && solutionBelief(student, { question, solution, thought: "" }, options),
  ]);
  return {
    teacher: read?.surprise ?? null,
    student: belief && surpriseOf(belief),
    scoredTokens: (read?.scoredTokens ?? 0) + (belief?.scoredTokens ?? 0),
    cachedTokens: (read?.cachedTokens ?? 0) + (belief?.cachedTokens ?? 0),
  };
}

/** @param score of the explanation under the student; null: it was not scored. */
export function familiarityOf(
  { teacher, student }: Pick<ProblemSurprise, "teacher" | "student">,
  score: Pick<Score, "kl" | "solution" | "thoughtTokens"> | null,
): Familiarity {
  return {
    teacher_surprise: teacher,
    student_surprise: student,
    kl_mean: score?.kl?.mean ?? null,
    kl_max: score?.kl?.max ?? null,
    kl_tokens: score?.kl ? score.thoughtTokens : 0,
    uplift: score && student ? score.solution.logprob_mean + student.mean : null,
  };
}

/** Several explanations of one problem taken together: the KL over all their tokens, the uplift over the explanations. */
export function overall(all: readonly [Familiarity, ...Familiarity[]]): Familiarity {
  const { teacher_surprise, student_surprise } = all[0];
  const compared = all.filter(({ kl_mean }) => kl_mean !== null);
  const tokens = total(compared.map(({ kl_tokens }) => kl_tokens));
  const uplifts = all.flatMap(({ uplift }) => uplift ?? []);
  return {
    teacher_surprise,
    student_surprise,
    kl_mean: compared.length === 0 ? null : total(compared.map((one) => one.kl_mean! * one.kl_tokens)) / tokens,
    kl_max: compared.length === 0 ? null : Math.max(...compared.map(({ kl_max }) => kl_max!)),
    kl_tokens: tokens,
    uplift: uplifts.length === 0 ? null : total(uplifts) / uplifts.length,
  };
}

/**
 * Of the solution where the teacher's prompt has it: most of that prompt is in the prefix cache when the teacher has just
 * written. Null where an engine cannot score texts, where the format shows the solution twice or outside the teacher's turn,
 * and where no token lies wholly inside it.
 */
async function teacherSurprise(
  teacher: ScoringModel<TeacherFormat>,
  { question, solution }: Problem,
  options: Options,
): Promise<{ surprise: Surprise; scoredTokens: number; cachedTokens: number } | null> {
  if (!teacher.engine.capabilities.logprobs || !readsSolutionOnce(teacher.format)) return null;
  const encoded = await teacher.text.encodePrompt(teacherPrompt(teacher.format, question, solution));
  const span = predicted(tokensInside(encoded.ends, encoded.fields[SOLUTION] ?? { start: 0, end: 0 }));
  if (span.from >= span.to) return null;
  // What follows the solution has no say in it.
  const ids = encoded.ids.subarray(0, span.to);
  const { temperature } = options;
  try {
    const scores = await scoreSpan(teacher, { ids }, span, { temperature, ...askingOf(options) });
    return { surprise: surpriseOf(scores), scoredTokens: ids.length, cachedTokens: scores.cachedTokens };
  } catch (error) {
    // A remote server that reports log-probs at another temperature only, without the means of an estimate.
    if (error instanceof PreceptorError && error.code === "unsupported_by_backend") return null;
    throw error;
  }
}

/** A copy surprises nobody, and what stands in an instruction is not predicted from the question. */
function readsSolutionOnce({ system, user, prefix }: TeacherFormat): boolean {
  return `${system ?? ""}${user}${prefix}`.split("{solution}").length === 2 && prefix.includes("{solution}");
}

/** @param logprobs (N ≥ 1) */
export function surpriseOf({ logprobs, errorBound }: Pick<LogprobsResult, "logprobs" | "errorBound">): Surprise {
  const tokens = logprobs.length;
  return {
    // 0 − x: a certain token has the surprise 0, not −0.
    mean: 0 - total(logprobs) / tokens,
    max: 0 - Math.min(...logprobs),
    tokens,
    ...(errorBound ? { error_bound: Math.max(...errorBound) } : {}),
  };
}

function total(values: Iterable<number>): number {
  let sum = 0;
  for (const value of values) sum += value;
  return sum;
}
