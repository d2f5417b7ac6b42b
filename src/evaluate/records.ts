/** What an evaluation keeps of every row, as soon as it is finished. */
import type { ErrorCode } from "../errors.ts";
import type { JournalRecord } from "../jobs/journal.ts";

export interface EvaluatedSample {
  correct: boolean;
  /** What the checker read out of the answer. */
  extracted: string | null;
  /** The answer's tags were written; otherwise the whole completion was taken for it. */
  answer_found: boolean;
  /** As it was written. */
  completion: string;
  tokens: number;
  /** It was cut off by the limit. */
  truncated: boolean;
}

export interface EvaluatedRow extends JournalRecord {
  /** Number of the row in its dataset. */
  row: number;
  /** The row's own, where it has one. */
  id?: string;
  samples: EvaluatedSample[];
  /** Nothing was generated: the row counts as wrong. */
  error?: { code: ErrorCode; message: string };
}
