/** What a distillation job does, every default filled in; names are those of the API (docs/distillation.md). */
import type { EvaluationConfig } from "../evaluate/config.ts";
import type { Estimator } from "../rlt/kl.ts";
import type { Coefficients } from "../rlt/reward.ts";
import type { TrainingConfig } from "../train/config.ts";
import type { Selection } from "./predicate.ts";

export interface DistillConfig {
  /** Where the explanations come from: written by a teacher, or the traces that the rows bring. */
  from: "teacher" | "rows";
  /** With their versions: `id@3`. With `from: "rows"` the teacher only scores, and may be left out. */
  teacher: string | null;
  student: string | null;
  dataset: string;
  samples_per_question: number;
  sampling: { temperature: number; top_p: number; top_k: number; max_tokens: number | null };
  coefficients: Coefficients;
  /** How teacher and student are compared; what a teacher has just drawn by k1, which the method takes. */
  kl: { estimator: Estimator; k: number };
  select: Selection;
  filters: Filters;
  /** The job ends as soon as exactly so many rows are accepted; null: every question is used. */
  target_rows: number | null;
  /** Only the first so many questions, and nothing after the datasets. */
  preview: number | null;
  finetune: Finetune | null;
  /** How the student is measured before and after. */
  evaluate: Measurement | null;
  budget: { tokens: number | null; seconds: number | null };
  seed: number;
  /** Of the dataset that comes out. */
  name: string | null;
}

export interface Finetune {
  /** But for its dataset, which is what comes out. */
  training: TrainingConfig;
  controls: Control[];
}

export type Measurement = Omit<EvaluationConfig, "student" | "weights_hash">;

/** What the same student is trained on instead, for comparison: no explanation at all, or the rows' own. */
export type Control = "solutions" | "reasoning_trace";

/** What an explanation must be besides well scored. */
export interface Filters {
  /** Closed by its tag and free of tags and control tokens. */
  format: boolean;
  /** Tokens that question, explanation and solution may have together, as the student reads them; null: any. */
  fits_context: number | null;
  /** Similarity (of MinHash) from which a later explanation counts as a copy of an accepted one; null: none is looked for. */
  dedupe: number | null;
  /** Share of the explanation, from its beginning, within which the solution must not stand verbatim; null: it may. */
  not_leaked: number | null;
}

/** Of one question. The method draws one and filters nothing; more are drawn to choose among. */
export const MAX_SAMPLES_PER_QUESTION = 256;
/** The temperature of the method, of sampling and of the reward. */
export const DEFAULT_SAMPLING = { temperature: 0.7, top_p: 1, top_k: 0 } as const;
/** Explanations that say the same in slightly other words share about this much of their runs of five words. */
export const DEFAULT_NEAR = 0.8;
/** An explanation that arrives at the solution has it in its second half; one that sets out from it restates it. */
export const DEFAULT_LEAK_SHARE = 0.5;
