/** From rows to figures. Rows may come in any order: what comes out is the same to the bit. */
import type { EvaluatedRow } from "./records.ts";
import {
  accuracyInterval,
  differenceInterval,
  type Interval,
  LEVEL,
  mcnemar,
  meanOf,
  passAtK,
  type Shares,
} from "./statistics.ts";

/** What the figures need of a row. */
export type RowFigures = Pick<EvaluatedRow, "row" | "error"> & {
  /** Of its samples, how many … */
  correct: number;
  answered: number;
  inFormat: number;
  truncated: number;
  made: number;
  tokens: number;
};

export interface EvaluationSummary {
  /** Mean over rows of the mean over samples: pass@1. Null: there is no row. */
  accuracy: number | null;
  interval: Interval | null;
  /** By k, up to the samples of a row. */
  pass_at_k: Record<string, number>;
  /** Of all samples, the share from which an answer could be read. */
  answered: number;
  /** … that wrote the tags of their format. */
  in_format: number;
  /** … that the limit cut off. */
  truncated: number;
  mean_completion_tokens: number;
  counts: { rows: number; samples: number; correct: number; errors: Record<string, number>; completion_tokens: number };
}

export function figuresOf({ row, samples, error }: EvaluatedRow): RowFigures {
  const count = (holds: (sample: EvaluatedRow["samples"][number]) => boolean): number => samples.filter(holds).length;
  return {
    row,
    ...(error ? { error } : {}),
    correct: count(({ correct }) => correct),
    answered: count(({ extracted }) => extracted !== null),
    inFormat: count(({ answer_found: found }) => found),
    truncated: count(({ truncated }) => truncated),
    made: samples.length,
    tokens: samples.reduce((sum, { tokens }) => sum + tokens, 0),
  };
}

/** `samples`: of each row; one without (its prompt was too long) has all of them wrong. */
export function summarise(given: Iterable<RowFigures>, samples: number): EvaluationSummary {
  const rows = [...given].sort((a, b) => a.row - b.row);
  const total = (of: (row: RowFigures) => number): number => rows.reduce((sum, row) => sum + of(row), 0);
  const all = rows.length * samples;
  const share = (of: (row: RowFigures) => number): number => (all === 0 ? 0 : total(of) / all);
  const made = total((row) => row.made);
  const tokens = total((row) => row.tokens);
  const shares = sharesOf(rows, samples);
  const errors: Record<string, number> = {};
  for (const { error } of rows) if (error) errors[error.code] = (errors[error.code] ?? 0) + 1;
  return {
    accuracy: rows.length === 0 ? null : meanOf(shares.shares),
    interval: accuracyInterval(shares),
    pass_at_k: rows.length === 0 ? {} : passes(rows, samples),
    answered: share((row) => row.answered),
    in_format: share((row) => row.inFormat),
    truncated: share((row) => row.truncated),
    mean_completion_tokens: made === 0 ? 0 : tokens / made,
    counts: {
      rows: rows.length,
      samples: all,
      correct: total((row) => row.correct),
      errors,
      completion_tokens: tokens,
    },
  };
}

const sharesOf = (rows: readonly RowFigures[], samples: number): Shares => ({
  shares: rows.map(({ correct }) => correct / samples),
  samples,
});

function passes(rows: readonly RowFigures[], samples: number): Record<string, number> {
  const ks = Array.from({ length: samples }, (_, i) => i + 1);
  return Object.fromEntries(ks.map((k) => [k, meanOf(rows.map(({ correct }) => passAtK(samples, correct, k)))]));
}

export interface PairedDifference {
  /** After − before. */
  difference: number;
  interval: { low: number; high: number; level: typeof LEVEL; method: "newcombe_paired" } | null;
  /** With one sample a row: exact p of McNemar's test. */
  mcnemar_p: number | null;
  /** Rows that got better, and worse. */
  improved: number;
  worsened: number;
  rows: number;
}

/** Two evaluations of the same rows with the same number of samples. Throws where the rows differ: they cannot be compared. */
export function pairedDifference(
  before: Iterable<RowFigures>,
  after: Iterable<RowFigures>,
  samples: number,
): PairedDifference {
  const [first, second] = [before, after].map((rows) => [...rows].sort((a, b) => a.row - b.row)) as [
    RowFigures[],
    RowFigures[],
  ];
  if (first.length !== second.length || first.some(({ row }, i) => row !== second[i]!.row)) {
    throw new RangeError("the two evaluations are not of the same rows");
  }
  const [a, b] = [sharesOf(first, samples), sharesOf(second, samples)];
  const improved = first.filter(({ correct }, i) => second[i]!.correct > correct).length;
  const worsened = first.filter(({ correct }, i) => second[i]!.correct < correct).length;
  const interval = differenceInterval(a, b);
  return {
    difference: meanOf(b.shares) - meanOf(a.shares),
    interval: interval && { ...interval, level: LEVEL, method: "newcombe_paired" },
    mcnemar_p: samples === 1 && first.length > 0 ? mcnemar(improved, worsened) : null,
    improved,
    worsened,
    rows: first.length,
  };
}
