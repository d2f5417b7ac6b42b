/** Rows of the queue as the API shows them. */
import type { JobRecord } from "../../../jobs/records.ts";
import type { TrainingConfig } from "../../../train/config.ts";
import { commonFields } from "../../jobs/service.ts";
import type { TrainingJob } from "./schemas.ts";

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
  return {
    id: job.id,
    object: "training.job",
    ...commonFields(job),
    method: config.method,
    progress: { ...NO_PROGRESS, ...(job.progress as Partial<TrainingJob["progress"]> | null) },
    ...(job.result ? { result: job.result as NonNullable<TrainingJob["result"]> } : {}),
  };
}
