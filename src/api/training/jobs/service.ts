import { fail } from "../../../errors.ts";
import { newId } from "../../../ids.ts";
import type { JobQueue } from "../../../jobs/queue.ts";
import type { JobRecord } from "../../../jobs/records.ts";
import type { TrainingConfig } from "../../../train/config.ts";
import { changeHyperparameters, configHash } from "../../../train/resolve-config.ts";
import { type CheckDeps, checkJob, sizeOf } from "./check.ts";
import { asRequest, type CreateTrainingJob, type ForkTrainingJob } from "./request-schemas.ts";
import { KINDS, toEvent, toResource } from "./resource.ts";
import type { MetricSeries, TrainingEvent, TrainingJob } from "./schemas.ts";

export interface TrainingJobService {
  /** Checks everything, then queues. */
  create(request: CreateTrainingJob): Promise<TrainingJob>;
  get(id: string): Promise<TrainingJob>;
  list(query: ListQuery): Promise<{ data: TrainingJob[]; hasMore: boolean }>;
  cancel(id: string): Promise<TrainingJob>;
  pause(id: string): Promise<TrainingJob>;
  resume(id: string): Promise<TrainingJob>;
  /** A new job that goes on from a checkpoint of this one. */
  fork(id: string, request: ForkTrainingJob): Promise<TrainingJob>;
  events(id: string, query: { after: number; limit: number }): Promise<{ data: TrainingEvent[]; hasMore: boolean }>;
  /** Sends events after a number, then live ones, until the terminal one. */
  follow(id: string, after: number, signal: AbortSignal, send: (event: TrainingEvent) => Promise<void>): Promise<void>;
  metrics(
    id: string,
    query: { names?: string[] | undefined; every: number; after?: number | undefined },
  ): Promise<MetricSeries>;
}

export interface ListQuery {
  after?: string | undefined;
  limit: number;
  order: "asc" | "desc";
  status?: TrainingJob["status"] | undefined;
  method?: TrainingJob["method"] | undefined;
  metadata?: Record<string, string> | undefined;
}

export interface TrainingJobDeps extends CheckDeps {
  queue: JobQueue;
}

export function createTrainingJobService(deps: TrainingJobDeps): TrainingJobService {
  const { queue } = deps;

  /** Other kinds of jobs have routes of their own. */
  async function find(id: string): Promise<JobRecord> {
    const job = await queue.find(id);
    if (job && Object.values<string>(KINDS).includes(job.kind)) return job;
    throw fail("not_found", "there is no such training job; GET /v1/training/jobs lists all");
  }

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

  const request =
    (verb: "cancel" | "pause" | "resume") =>
    async (id: string): Promise<TrainingJob> => {
      await find(id);
      return toResource(await queue[verb](id));
    };

  return {
    async create(body) {
      const { config } = await checkJob(deps, asRequest(body));
      return insert(config, body.metadata);
    },
    get: async (id) => toResource(await find(id)),
    async list({ method, ...query }) {
      const kinds = method ? [KINDS[method]] : Object.values(KINDS);
      const { rows, hasMore } = await queue.list({ ...query, kinds });
      return { data: rows.map(toResource), hasMore };
    },
    cancel: request("cancel"),
    pause: request("pause"),
    resume: request("resume"),

    async fork(id, { checkpoint, hyperparameters, budget, suffix, metadata }) {
      const job = await find(id);
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

    async events(id, { after, limit }) {
      await find(id);
      const rows = await queue.events(id, { after, limit: limit + 1 });
      return { data: rows.slice(0, limit).map(toEvent), hasMore: rows.length > limit };
    },
    async follow(id, after, signal, send) {
      await find(id);
      for await (const event of queue.follow(id, { after, signal })) await send(toEvent(event));
    },
    async metrics(id, query) {
      await find(id);
      return { object: "training.job.metrics", job: id, data: await queue.metrics(id, query) };
    },
  };
}
