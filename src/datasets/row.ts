/** A row as it is stored: keys in this order, absent ones left out. Its JSON is what the content hash is made of. */

export interface DatasetRow {
  id?: string;
  question: string;
  solution: string;
  reasoning_trace?: string;
  /** Whatever else the row brought. */
  metadata?: Record<string, unknown>;
  /** Of a row that a job made: which models, seeds and scores it came from (docs/distillation.md). */
  provenance?: Record<string, unknown>;
}

export const COLUMNS = ["id", "question", "solution", "reasoning_trace", "metadata", "provenance"] as const;
export type Column = (typeof COLUMNS)[number];

/** One candidate of a file or body: its values as they came, or why it cannot be read at all. */
export type RawRow = { line: number } & ({ value: unknown } | { fault: string });
