/** What an evaluation does, every default filled in, and which rows it is about. */
import type { TrainingDataset } from "../train/job-deps.ts";
import type { AnswerSpec } from "./answers.ts";

export interface EvaluationConfig {
  /** With its version: `id@3`. */
  student: string;
  /** Of its files as they were; null: a remote server's own affair. */
  weights_hash: string | null;
  dataset: string;
  content_hash: string;
  /** One side of a split (src/datasets/split.ts); null: all rows. */
  held_out: HeldOut | null;
  /** The first so many of them. */
  limit: number | null;
  answer: AnswerSpec;
  max_tokens: number;
  /** 0 is greedy. */
  temperature: number;
  top_p: number;
  samples: number;
  seed: number;
}

export interface HeldOut {
  fraction: number;
  seed: number;
  part: "held_out" | "train";
}

/** An interval of 100,000 questions is 0.6 % wide: more rows say nothing more, and all figures lie in memory. */
export const MAX_EVALUATED_ROWS = 100_000;
/** Each is kept, and pass@k is told for every k; 64 are a group of the paper and fill the engine's slots by themselves. */
export const MAX_SAMPLES = 64;
/** Long enough for the answers of small students; the share that was cut off is told. */
export const DEFAULT_MAX_TOKENS = 2_048;
/** With several samples a question; a single one is greedy. */
export const DEFAULT_TEMPERATURE = 0.7;

/** Numbers of the rows, in order. */
export async function rowsOf(
  dataset: Pick<TrainingDataset, "count" | "split">,
  { held_out: heldOut, limit }: Pick<EvaluationConfig, "held_out" | "limit">,
): Promise<number[]> {
  const end = limit ?? Number.POSITIVE_INFINITY;
  if (!heldOut) return Array.from({ length: Math.min(dataset.count, end) }, (_, i) => i);
  const split = await dataset.split(heldOut.fraction, heldOut.seed);
  const rows = heldOut.part === "train" ? split.train : split.heldOut;
  return [...rows].sort((a, b) => a - b).slice(0, limit ?? undefined);
}
