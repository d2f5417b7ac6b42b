/**
 * Which samples become rows. A pure function of the records in the order of (row, sample), so that a job that was killed, one
 * that was not, and somebody who looks in between all see the same rows.
 */
import type { DistillConfig } from "./config.ts";
import { isLeaked } from "./leak.ts";
import { failing } from "./predicate.ts";
import { partsOf, type QuestionRecord, type SampleRecord } from "./records.ts";

/** Why a sample is no row, or a question has none. A closed list: reports and callers count by it. */
export const REASONS = [
  /** The question itself: its prompt does not fit the teacher's context, … */
  "unusable_question",
  /** The closing tag is missing, or tags and control tokens are in it. */
  "format",
  /** The solution stands in its beginning, verbatim. */
  "solution_leaked",
  /** The student could not read it. */
  "unscored",
  "too_long",
  "below_threshold",
  /** Says what an accepted one says. */
  "near_duplicate",
  /** Another sample of the question was taken. */
  "not_chosen",
  /** `target_rows` was reached before its turn. */
  "not_needed",
] as const;
export type Reason = (typeof REASONS)[number];

export interface Verdict {
  sample: SampleRecord;
  /** Null: it is a row. */
  reason: Reason | null;
  /** What exactly. */
  detail?: string;
}

export interface Selected {
  /** In order of samples. */
  verdicts: Verdict[];
  /** The question as such; it has no samples then. */
  unusable: { reason: Reason; detail: string } | null;
}

export interface SelectionState {
  /** To be called for every question, in order. */
  take(record: QuestionRecord, question: { solution: string }): Selected;
  readonly accepted: number;
  readonly rejected: Readonly<Partial<Record<Reason, number>>>;
  /** As many rows as were asked for. */
  readonly full: boolean;
}

/** Remembers texts; `add` gives the number of an earlier one that is nearly the same, and then does not remember it. */
export interface NearDuplicates {
  add(text: string): number | undefined;
}

type Options = Pick<DistillConfig, "select" | "filters" | "target_rows">;

export function createSelection(options: Options, nearDuplicates: NearDuplicates | null): SelectionState {
  const { select, target_rows: target } = options;
  const rejected: Partial<Record<Reason, number>> = {};
  let accepted = 0;
  const full = (): boolean => target !== null && accepted >= target;

  function accept(sample: SampleRecord): Reason | null {
    if (full()) return "not_needed";
    // Only what becomes a row is compared with: copies of rejected ones harm nobody.
    if (nearDuplicates?.add(sample.explanation) !== undefined) return "near_duplicate";
    accepted++;
    return null;
  }

  return {
    get accepted() {
      return accepted;
    },
    rejected,
    get full() {
      return full();
    },
    take(record, { solution }) {
      if (record.error) {
        rejected.unusable_question = (rejected.unusable_question ?? 0) + 1;
        return { verdicts: [], unusable: { reason: "unusable_question", detail: record.error.message } };
      }
      const verdicts = record.samples.map(
        (sample): Verdict => ({ sample, ...faultOf(sample, record, solution, options) }),
      );
      const passing = verdicts.filter(({ reason }) => reason === null);
      if (select.rule === "best") passing.sort((a, b) => rewardOf(b) - rewardOf(a));
      let taken = false;
      for (const verdict of passing) {
        verdict.reason = taken && select.rule !== "all" ? "not_chosen" : accept(verdict.sample);
        taken ||= verdict.reason === null;
      }
      for (const { reason } of verdicts) if (reason !== null) rejected[reason] = (rejected[reason] ?? 0) + 1;
      return { verdicts, unusable: null };
    },
  };
}

const rewardOf = ({ sample }: Verdict): number => sample.score?.reward ?? Number.NEGATIVE_INFINITY;

function faultOf(
  sample: SampleRecord,
  { surprise }: QuestionRecord,
  solution: string,
  { select, filters }: Options,
): { reason: Reason | null; detail?: string } {
  if (filters.format && sample.violations.length > 0) return { reason: "format", detail: sample.violations.join(", ") };
  if (filters.not_leaked !== null && isLeaked(sample.explanation, solution, filters.not_leaked)) {
    return { reason: "solution_leaked" };
  }
  // Beyond the whole context there is no score, only the error that says so.
  if (filters.fits_context !== null && sample.error?.code === "context_length_exceeded") {
    return { reason: "too_long", detail: sample.error.message };
  }
  const needed = select.where !== null || select.rule === "best" || filters.fits_context !== null;
  if (needed && sample.error) return { reason: "unscored", detail: sample.error.message };
  const length = sample.score?.text_tokens ?? 0;
  if (filters.fits_context !== null && length > filters.fits_context) {
    return { reason: "too_long", detail: `${length} tokens, at most ${filters.fits_context}` };
  }
  const fault = select.where && failing(select.where, partsOf(sample, surprise));
  return fault === null ? { reason: null } : { reason: "below_threshold", detail: fault };
}
