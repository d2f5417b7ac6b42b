import type { DatasetOpener } from "../../datasets/open.ts";
import type { DistillConfig } from "../../distill/config.ts";
import { JournalGone } from "../../distill/generate.ts";
import type { DistillResult, Ending } from "../../distill/handler.ts";
import { liveRows } from "../../distill/live-rows.ts";
import { type DistillProgress, NOTHING_YET } from "../../distill/progress.ts";
import { fail } from "../../errors.ts";
import { newId } from "../../ids.ts";
import type { JobQueue } from "../../jobs/queue.ts";
import type { JobProgress, JobRecord } from "../../jobs/records.ts";
import { configHash } from "../../train/resolve-config.ts";
import { commonFields, createJobService, type JobService } from "../jobs/service.ts";
import { checkDistillation, type DistillCheckDeps } from "./check.ts";
import type { CreateDistillation } from "./request-schemas.ts";
import { checkRescore, type Rescore } from "./rescore.ts";
import type { DistillationJob, LiveRows } from "./schemas.ts";

/** Of the queue. */
export const DISTILLATION = "distillation";

export interface DistillationService extends JobService<DistillationJob> {
  /** Checks everything, then queues. */
  create(request: CreateDistillation): Promise<DistillationJob>;
  /** A job that scores and ranks the rows of a dataset. */
  rescore(dataset: string, request: Rescore): Promise<DistillationJob>;
  /** Rows as they are made, before the datasets are there and after. */
  rows(id: string, query: LiveQuery): Promise<LiveRows>;
}

export interface LiveQuery {
  part: "accepted" | "rejected";
  after: number;
  limit: number;
}

export interface DistillationDeps extends DistillCheckDeps {
  queue: JobQueue;
  opener: Pick<DatasetOpener, "openDataset">;
  /** Folder of what jobs leave behind. */
  artifacts: string;
}

export function createDistillationService(deps: DistillationDeps): DistillationService {
  const { queue, opener, artifacts } = deps;
  const jobs = createJobService(queue, {
    kinds: [DISTILLATION],
    object: "distillation.job",
    noun: "distillation job",
    base: "/v1/distillation/jobs",
    toResource,
  });
  async function insert(config: DistillConfig, metadata: Record<string, string>): Promise<DistillationJob> {
    const { seed } = config;
    const id = newId("djob");
    return toResource(
      await queue.insert({ id, kind: DISTILLATION, config, configHash: configHash(config), seed, metadata }),
    );
  }

  async function page(id: string, query: LiveQuery): Promise<LiveRows> {
    const job = await jobs.find(id);
    const { output_dataset: output, error_dataset: errors } = toResource(job);
    if (madeOf(job)) return stored(opener, query.part === "accepted" ? output : errors, query);
    const config = job.config as DistillConfig;
    const { questions = 0 } = (job.progress ?? {}) as Partial<DistillProgress>;
    const dataset = await opener.openDataset(config.dataset);
    return { object: "list", ...(await liveRows({ artifacts }, id, config, dataset, questions, query)) };
  }

  /** What a job has finished that nobody runs is written down by the next worker, which only then cancels it. */
  async function cancel(id: string): Promise<DistillationJob> {
    const job = await jobs.find(id);
    const ending = cancelled(job);
    if (!ending) return jobs.cancel(id);
    // Taken up meanwhile: then it is told as any that runs.
    return toResource((await queue.wrapUp(job, ending)) ?? (await queue.cancel(id)));
  }

  return {
    ...jobs,
    cancel,
    create: async (body) => insert(await checkDistillation(deps, body), body.metadata),
    rescore: async (dataset, body) => insert(await checkRescore(deps, dataset, body), body.metadata),
    async rows(id, query) {
      try {
        return await page(id, query);
      } catch (error) {
        if (!(error instanceof JournalGone)) throw error;
      }
      // It has just been written down, or what was finished is gone for good.
      return page(id, query).catch((error: unknown) => {
        if (!(error instanceof JournalGone)) throw error;
        throw fail(
          "not_found",
          "the finished rows of this job are no longer on this server's disk; create the job again",
        );
      });
    },
  };
}

async function stored(
  opener: DistillationDeps["opener"],
  id: string | null,
  { after, limit }: LiveQuery,
): Promise<LiveRows> {
  const data: LiveRows["data"] = [];
  if (id === null) return { object: "list", data, has_more: false };
  const dataset = await opener.openDataset(id);
  const from = after + 1;
  for await (const row of dataset.rows(from, from + limit)) data.push({ number: from + data.length, ...row });
  return { object: "list", data, has_more: from + data.length < dataset.count };
}

/** Where a job goes on whose rows are yet to be written, so that it ends with them. Null: there is nothing to write. */
function cancelled({ status, progress }: JobRecord): JobProgress | null {
  const now = progress as DistillProgress | null;
  if (!now || (status !== "paused" && status !== "queued") || now.questions === 0 || now.made.rows) return null;
  const ending: Ending = { questions: now.questions, stopped: "cancel" };
  return { ...now, made: { ending, ...now.made } };
}

const madeOf = ({ progress }: JobRecord): { result: DistillResult } | undefined =>
  (progress as DistillProgress | null)?.made.rows as { result: DistillResult } | undefined;

function toResource(job: JobRecord): DistillationJob {
  const { made: _, ...progress } = {
    ...NOTHING_YET,
    total_questions: null,
    ...(job.progress as DistillProgress | null),
  };
  const rows = madeOf(job)?.result;
  return {
    id: job.id,
    object: "distillation.job",
    ...commonFields(job),
    progress,
    output_dataset: rows?.output_dataset ?? null,
    error_dataset: rows?.error_dataset ?? null,
    ...(job.result ? { result: job.result as Record<string, unknown> } : {}),
  };
}
