/** Rows of the queue as the API shows them. */
import { unixSeconds } from "../../../http/schemas.ts";
import type { JobEvent, JobRecord } from "../../../jobs/records.ts";
import type { TrainingConfig } from "../../../train/config.ts";
import type { TrainingEvent, TrainingJob } from "./schemas.ts";

export const KINDS = { sft: "training.sft", rlt: "training.rlt" } as const;

const NO_PROGRESS: TrainingJob["progress"] = {
  step: 0,
  total_steps: null,
  percent: 0,
  eta_seconds: null,
  phase: null,
  tokens_sampled: 0,
  tokens_scored: 0,
  tokens_trained: 0,
};

export function toResource(job: JobRecord): TrainingJob {
  const config = job.config as TrainingConfig;
  const at = (date: Date | null): number | null => date && unixSeconds(date);
  return {
    id: job.id,
    object: "training.job",
    created_at: unixSeconds(job.createdAt),
    started_at: at(job.startedAt),
    finished_at: at(job.finishedAt),
    method: config.method,
    status: job.status,
    wanted: job.wanted,
    progress: { ...NO_PROGRESS, ...(job.progress as Partial<TrainingJob["progress"]> | null) },
    metrics: job.metrics,
    config: { ...config },
    config_hash: job.configHash,
    seed: job.seed,
    attempts: job.attempts,
    ...(job.result ? { result: job.result as NonNullable<TrainingJob["result"]> } : {}),
    ...(job.error ? { error: job.error } : {}),
    metadata: job.metadata,
  };
}

export function toEvent({ seq, type, data, at }: JobEvent): TrainingEvent {
  return {
    id: String(seq),
    object: "training.job.event",
    type,
    sequence_number: seq,
    created_at: unixSeconds(at),
    data,
  };
}
