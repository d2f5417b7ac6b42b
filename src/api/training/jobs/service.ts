import { fail } from "../../../errors.ts";
import { newId } from "../../../ids.ts";
import type { JobQueue } from "../../../jobs/queue.ts";
import type { TrainingConfig } from "../../../train/config.ts";
import { changeHyperparameters, configHash } from "../../../train/resolve-config.ts";
import { createJobService, type JobService } from "../../jobs/service.ts";
import { type CheckDeps, checkJob, sizeOf } from "./check.ts";
import { asRequest, type CreateTrainingJob, type ForkTrainingJob } from "./request-schemas.ts";
import { KINDS, toResource } from "./resource.ts";
import type { TrainingJob } from "./schemas.ts";

export interface TrainingJobService extends JobService<TrainingJob> {
  /** Checks everything, then queues. */
  create(request: CreateTrainingJob): Promise<TrainingJob>;
  /** A new job that goes on from a checkpoint of this one. */
  fork(id: string, request: ForkTrainingJob): Promise<TrainingJob>;
}

export interface TrainingJobDeps extends CheckDeps {
  queue: JobQueue;
}

export function createTrainingJobService(deps: TrainingJobDeps): TrainingJobService {
  const { queue } = deps;

  const jobs = createJobService(queue, {
    kinds: Object.values(KINDS),
    object: "training.job",
    noun: "training job",
    base: "/v1/training/jobs",
    toResource,
  });

  async function insert(config: TrainingConfig, metadata: Record<string, string>): Promise<TrainingJob> {
    const job = await queue.insert({
      id: newId("tjob"),
      kind: KINDS[config.method],
      config,
      configHash: configHash(config),
      seed: config.seed,
      metadata,
    });
    return toResource(job);
  }

  return {
    ...jobs,

    async create(body) {
      const { config } = await checkJob(deps, asRequest(body));
      return insert(config, body.metadata);
    },

    async fork(id, { checkpoint, hyperparameters, budget, suffix, metadata }) {
      const job = await jobs.find(id);
      const from = checkpoint === undefined ? await queue.lastCheckpoint(id) : await queue.findCheckpoint(checkpoint);
      if (checkpoint === undefined && !from) throw fail("conflict", "this job has saved no checkpoint to go on from");
      if (!from || from.deletedAt || from.jobId !== id) {
        throw fail("invalid_value", "checkpoint: not one of this job's; GET …/checkpoints lists them", {
          param: "checkpoint",
        });
      }
      const changed = changeHyperparameters(job.config as TrainingConfig, hyperparameters ?? {});
      const config: TrainingConfig = {
        ...changed,
        from_checkpoint: from.id,
        ...(budget ? { budget: { tokens: budget.tokens ?? null, seconds: budget.seconds ?? null } } : {}),
        ...(suffix === undefined ? {} : { suffix }),
      };
      const { steps } = await sizeOf(config, await deps.datasets.open(config.dataset));
      if (from.step >= steps) {
        throw fail(
          "invalid_value",
          `hyperparameters.max_steps: the checkpoint stands at step ${from.step} of ${steps}, so nothing is left to do; ask for more steps`,
          { param: "hyperparameters.max_steps" },
        );
      }
      return insert(config, metadata);
    },
  };
}
