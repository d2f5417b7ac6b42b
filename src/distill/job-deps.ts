/** What a distillation job needs from the rest of the program. */
import type { keepDataset } from "../datasets/keep.ts";
import type { JobQueue } from "../jobs/queue.ts";
import type { ServedModel, TrainingDeps, TrainingRow } from "../train/job-deps.ts";
import type { Measurement } from "./config.ts";

export interface SourceRow {
  id?: string | undefined;
  question: string;
  solution: string;
  reasoning_trace?: string | undefined;
  metadata?: Record<string, unknown> | undefined;
  provenance?: Record<string, unknown> | undefined;
}

export interface SourceDataset {
  id: string;
  contentHash: string;
  count: number;
  row(index: number): Promise<SourceRow>;
}

export interface DistillDeps {
  /** Waits until it is loaded; held until `release`. */
  teach(teacher: string, signal: AbortSignal): Promise<ServedModel>;
  serve(student: string, signal: AbortSignal): Promise<ServedModel>;
  /** For answering questions. */
  answer(student: string, signal: AbortSignal): Promise<ServedModel>;
  dataset(id: string): Promise<SourceDataset>;
  /** Which rows of which dataset a measurement is about. */
  evaluated(asked: Measurement): Promise<{ rows: readonly number[]; row(index: number): Promise<TrainingRow> }>;
  /** Does again what an engine that is busy, or a server that is away, refused. */
  patiently<T>(attempt: () => Promise<T>, signal: AbortSignal): Promise<T>;
  keep: ReturnType<typeof keepDataset>;
  queue: Pick<JobQueue, "listCheckpoints" | "removeCheckpoint" | "findCheckpoint" | "needing">;
  /** For the stages that train. */
  training: TrainingDeps;
  /** Folder of checkpoints and of what jobs leave behind. */
  artifacts: string;
}
