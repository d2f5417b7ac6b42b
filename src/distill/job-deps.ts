/** What a distillation job needs from the rest of the program. */
import type { keepDataset } from "../datasets/keep.ts";
import type { JobQueue } from "../jobs/queue.ts";
import type { ServedModel, TrainingDeps } from "../train/job-deps.ts";

export interface SourceRow {
  id?: string | undefined;
  question: string;
  solution: string;
  reasoning_trace?: string | undefined;
  metadata?: Record<string, unknown> | undefined;
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
  dataset(id: string): Promise<SourceDataset>;
  keep: ReturnType<typeof keepDataset>;
  queue: Pick<JobQueue, "listCheckpoints" | "removeCheckpoint" | "findCheckpoint" | "needing">;
  /** For the stages that train. */
  training: TrainingDeps;
  /** Folder of checkpoints and of what jobs leave behind. */
  artifacts: string;
}
