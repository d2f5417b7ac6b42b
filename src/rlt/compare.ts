/** Teacher against student over the explanation they share. */
import { fail } from "../errors.ts";
import { alignTokens, type Stretch } from "./align.ts";
import type { StudentFormat, TeacherFormat } from "./formats.ts";
import { type Estimator, k1, k3, topkTail } from "./kl.ts";
import { type Reading, type ScoringModel, type Side, scoreOne } from "./reading.ts";

export interface CompareOptions {
  temperature: number;
  estimator: Estimator;
  /** Ranks kept by `topk_tail`. */
  topK: number;
  signal?: AbortSignal | undefined;
}

export interface Comparison {
  stretches: Stretch[];
  /** By the teacher's token position. */
  teacherLogprobs: (token: number) => number;
  /** Per stretch, where the estimator needs more than the two log-probs. */
  values: Float64Array | null;
}

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
  const needsIds = options.estimator === "full" || options.estimator === "topk_tail";
  if (needsIds) assertSharedTokens(teacher, student, written, read, stretches, options.estimator);
  const first = stretches[0];
  const last = stretches.at(-1);
  if (!first || !last) return { stretches, teacherLogprobs: () => 0, values: new Float64Array(0) };
  const from = Math.max(first.teacher.from, 1);
  const scored = await scoreOne(
    teacher,
    { ids: written.encoded.ids, from, to: last.teacher.to },
    {
      temperature: options.temperature,
      signal: options.signal,
      topK: options.estimator === "topk_tail" ? options.topK : 0,
    },
  );
  const teacherLogprobs = (token: number): number => scored.logprobs[token - scored.from] as number;
  const mine = { ids: read.encoded.ids, from: first.student.from, to: last.student.to };
  if (options.estimator === "topk_tail") {
    const { topIds, topLogprobs } = scored;
    if (!topIds || !topLogprobs)
      throw fail("unsupported_by_backend", "the teacher's engine reports no top-k log-probs");
    const answer = await scoreOne(student, { ...mine, at: topIds, atWidth: options.topK }, options);
    if (!answer.at) throw fail("unsupported_by_backend", "the student's engine reports no log-probs at chosen ids");
    return { stretches, teacherLogprobs, values: topkTail(topLogprobs, answer.at, options.topK) };
  }
  if (options.estimator === "full") {
    const reference = teacher.engine.distributions({
      ids: written.encoded.ids,
      from,
      to: last.teacher.to,
      temperature: options.temperature,
      adapter: teacher.adapter,
      ...(options.signal ? { signal: options.signal } : {}),
    });
    const answer = await scoreOne(student, { ...mine, reference }, options);
    if (!answer.kl) throw fail("unsupported_by_backend", "the student's engine computes no KL of whole distributions");
    return { stretches, teacherLogprobs, values: Float64Array.from(answer.kl) };
  }
  return { stretches, teacherLogprobs, values: null };
}

/** `full` and `topk_tail` compare distributions over one vocabulary, position by position. */
function assertSharedTokens(
  teacher: ScoringModel<TeacherFormat>,
  student: ScoringModel<StudentFormat>,
  written: Side,
  read: Reading,
  stretches: readonly Stretch[],
  estimator: Estimator,
): void {
  const shared =
    teacher.text.tokenizerHash === student.text.tokenizerHash && teacher.engine.vocabSize === student.engine.vocabSize;
  const identical = stretches.every(
    ({ teacher: t, student: s }) =>
      t.to - t.from === 1 && s.to - s.from === 1 && written.encoded.ids[t.from] === read.encoded.ids[s.from],
  );
  if (shared && identical) return;
  throw fail(
    "estimator_needs_shared_tokenizer",
    `the estimator ${estimator} compares whole distributions, so teacher and student need the same tokenizer and the same ` +
      `tokens in the explanation; use "k1" or "k3"`,
    { param: "kl.estimator" },
  );
}

export function estimate(
  estimator: Estimator,
  stretches: readonly Stretch[],
  teacher: (token: number) => number,
  student: (token: number) => number,
): Float64Array {
  const values = k1(stretches, teacher, student);
  return estimator === "k3" ? k3(values) : values;
}
