/** Teacher against student over the explanation they share. */
import { fail } from "../errors.ts";
import type { TextModel } from "../text/text.ts";
import { alignTokens, type Stretch } from "./align.ts";
import type { StudentFormat, TeacherFormat } from "./formats.ts";
import { type Estimator, k1, k3, topkTail } from "./kl.ts";
import { type Asking, askingOf, type Reading, type ScoringModel, type Side, scoreOne } from "./reading.ts";

export interface CompareOptions extends Asking {
  temperature: number;
  estimator: Estimator;
  /** Ranks kept by `topk_tail`. */
  topK: number;
  /** An engine that would have to estimate refuses instead. */
  exact: boolean;
}

export interface Comparison {
  stretches: Stretch[];
  /** By the teacher's token position. */
  teacherLogprobs: (token: number) => number;
  /** By the teacher's token position: how many nats its log-prob may be wrong. */
  teacherBounds: ((token: number) => number) | null;
  /** Per stretch, where the estimator needs more than the two log-probs. */
  values: Float64Array | null;
  /** Of the teacher's tokens, how many its prefix cache had. */
  cachedTokens: number;
}

/**
 * Teacher's log-probs over the explanation, aligned with the student's tokens; for `full` and `topk_tail` also the KL per
 * stretch. Throws `estimator_needs_shared_tokenizer`, `unsupported_by_backend`.
 */
export async function compare(
  teacher: ScoringModel<TeacherFormat>,
  student: ScoringModel<StudentFormat>,
  written: Side,
  read: Reading,
  options: CompareOptions,
): Promise<Comparison> {
  const stretches = alignTokens(
    { ends: written.encoded.ends, span: written.thought, start: written.thoughtStart },
    { ends: read.encoded.ends, span: read.thought, start: read.thoughtStart },
  );
  if (comparesDistributions(options.estimator)) {
    assertSharedTokenizer(vocabularyOf(teacher), vocabularyOf(student), options.estimator);
    assertSharedTokens(written, read, stretches, options.estimator);
  }
  const first = stretches[0];
  const last = stretches.at(-1);
  if (!first || !last) {
    return {
      stretches,
      teacherLogprobs: () => 0,
      teacherBounds: null,
      values: new Float64Array(0),
      cachedTokens: 0,
    };
  }
  const { from } = first.teacher;
  const { to } = last.teacher;
  // Whole distributions and tails have no bound that could be stated: they are exact or not at all.
  const exact = options.exact || comparesDistributions(options.estimator);
  const plain = { temperature: options.temperature, exact, ...askingOf(options) };
  const topK = options.estimator === "topk_tail" ? options.topK : 0;
  const scored = await scoreOne(teacher, { ids: written.encoded.ids, from, to }, { ...plain, topK });
  const { cachedTokens, errorBound } = scored;
  const teacherBounds = errorBound ? (token: number): number => errorBound[token - scored.from] as number : null;
  const teacherLogprobs = (token: number): number => scored.logprobs[token - scored.from] as number;
  const mine = { ids: read.encoded.ids, from: first.student.from, to: last.student.to };
  if (options.estimator === "topk_tail") {
    const { topIds, topLogprobs } = scored;
    if (!topIds || !topLogprobs) {
      throw fail("unsupported_by_backend", "the teacher's engine reports no top-k log-probs");
    }
    const answer = await scoreOne(student, { ...mine, at: topIds, atWidth: topK }, plain);
    if (!answer.at) throw fail("unsupported_by_backend", "the student's engine reports no log-probs at chosen ids");
    return { stretches, teacherLogprobs, teacherBounds, values: topkTail(topLogprobs, answer.at, topK), cachedTokens };
  }
  if (options.estimator === "full") {
    const { ids } = written.encoded;
    const reference = teacher.engine.distributions({ ids, from, to, adapter: teacher.adapter, ...plain });
    const answer = await scoreOne(student, { ...mine, reference }, plain);
    if (!answer.kl) throw fail("unsupported_by_backend", "the student's engine computes no KL of whole distributions");
    return { stretches, teacherLogprobs, teacherBounds, values: Float64Array.from(answer.kl), cachedTokens };
  }
  return { stretches, teacherLogprobs, teacherBounds, values: null, cachedTokens };
}

/** A tokenizer and the number of rows of the model's head, which may be padded beyond it. */
export interface Vocabulary {
  text: Pick<TextModel, "tokenizerHash">;
  /** Undefined: not known before its server answers. */
  vocabSize?: number | undefined;
}

export function vocabularyOf({ text, engine }: Pick<ScoringModel<unknown>, "text" | "engine">): Vocabulary {
  return { text, vocabSize: engine.vocabSize };
}

function comparesDistributions(estimator: Estimator): boolean {
  return estimator === "full" || estimator === "topk_tail";
}

/** `full` and `topk_tail` compare distributions over one vocabulary. True or false for all texts alike. */
export function assertSharedTokenizer(
  teacher: Vocabulary,
  student: Vocabulary,
  estimator: Estimator,
  param = "kl.estimator",
): void {
  const sizes = new Set([teacher.vocabSize, student.vocabSize].filter((size) => size !== undefined));
  const shared = teacher.text.tokenizerHash === student.text.tokenizerHash && sizes.size <= 1;
  if (shared || !comparesDistributions(estimator)) return;
  throw fail(
    "estimator_needs_shared_tokenizer",
    `the estimator ${estimator} compares whole distributions, so teacher and student need the same tokenizer; use "k1" or "k3"`,
    { param },
  );
}

/** … position by position: two formats may merge the explanation's first or last word with different tags. */
function assertSharedTokens(written: Side, read: Reading, stretches: readonly Stretch[], estimator: Estimator): void {
  const identical = stretches.every(
    ({ teacher: t, student: s }) =>
      t.to - t.from === 1 && s.to - s.from === 1 && written.encoded.ids[t.from] === read.encoded.ids[s.from],
  );
  if (identical) return;
  throw fail(
    "invalid_value",
    `the estimator ${estimator} needs the same tokens on both sides, but the formats of teacher and student cut this ` +
      `explanation differently; use "k1" or "k3", or the same kind of format`,
    { param: "explanation" },
  );
}

/** k1 or k3 per stretch, from the log-probs of both sides by token position. (S) */
export function estimate(
  estimator: Estimator,
  stretches: readonly Stretch[],
  teacher: (token: number) => number,
  student: (token: number) => number,
): Float64Array {
  const values = k1(stretches, teacher, student);
  return estimator === "k3" ? k3(values) : values;
}
