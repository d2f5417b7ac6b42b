import type { EvaluationConfig } from "../../evaluate/config.ts";
import { EVALUATION, rowsFolder } from "../../evaluate/handler.ts";
import type { EvaluationProgress } from "../../evaluate/progress.ts";
import type { EvaluatedRow } from "../../evaluate/records.ts";
import { newId } from "../../ids.ts";
import { readJournal } from "../../jobs/journal.ts";
import type { JobQueue } from "../../jobs/queue.ts";
import type { JobRecord } from "../../jobs/records.ts";
import type { TrainingDataset } from "../../train/job-deps.ts";
import { configHash } from "../../train/resolve-config.ts";
import { commonFields, createJobService, type JobService } from "../jobs/service.ts";
import { checkEvaluation, type EvaluationCheckDeps } from "./check.ts";
import type { CreateEvaluation, EvaluatedRowResource, Evaluation } from "./schemas.ts";

export interface EvaluationService extends JobService<Evaluation> {
  /** Checks everything, then queues. */
  create(request: CreateEvaluation): Promise<Evaluation>;
  /** Finished rows in the order of the dataset, those of a job that runs too. */
  rows(id: string, query: RowsQuery): Promise<{ data: EvaluatedRowResource[]; hasMore: boolean }>;
}

export interface RowsQuery {
  /** Number of a row. */
  after?: number | undefined;
  limit: number;
  /** All samples are right; or not. */
  correct?: boolean | undefined;
}

export interface EvaluationServiceDeps extends EvaluationCheckDeps {
  queue: JobQueue;
  /** Folder of what jobs leave behind. */
  artifacts: string;
}

/** A page of long completions ends early: a hundred rows of 64 would be more than a gigabyte. */
const PAGE_CHARACTERS = 8 * 2 ** 20;

const NO_PROGRESS: Evaluation["progress"] = {
  step: 0,
  total_steps: null,
  percent: 0,
  eta_seconds: null,
  tokens_per_second: null,
};

export function createEvaluationService(deps: EvaluationServiceDeps): EvaluationService {
  const { queue, artifacts, datasets } = deps;
  const jobs = createJobService(queue, {
    kinds: [EVALUATION],
    object: EVALUATION,
    noun: "evaluation",
    base: "/v1/evaluations",
    toResource,
  });
  return {
    ...jobs,

    async create({ metadata, ...body }) {
      const config = await checkEvaluation(deps, { ...body, metadata });
      const job = await queue.insert({
        id: newId("eval"),
        kind: EVALUATION,
        config,
        configHash: configHash(config),
        seed: config.seed,
        metadata,
      });
      return toResource(job);
    },

    async rows(id, query) {
      const { dataset: name } = (await jobs.find(id)).config as EvaluationConfig;
      const { rows, hasMore } = await pageOf(rowsFolder(artifacts, id), query);
      // Its dataset may have been deleted since.
      const dataset = await datasets.open(name).catch(() => null);
      return { data: await Promise.all(rows.map((row) => toRow(row, dataset))), hasMore };
    },
  };
}

/** Reads the whole journal: rows are finished in an order of their own, and the page is held in memory alone. */
async function pageOf(
  folder: string,
  { after = -1, limit, correct }: RowsQuery,
): Promise<{ rows: EvaluatedRow[]; hasMore: boolean }> {
  const page: EvaluatedRow[] = [];
  let hasMore = false;
  for await (const record of readJournal<EvaluatedRow>(folder)) {
    if (record.row <= after || (correct !== undefined && isCorrect(record) !== correct)) continue;
    if (page.length === limit && record.row > page.at(-1)!.row) {
      hasMore = true;
      continue;
    }
    const at = page.findIndex(({ row }) => row > record.row);
    page.splice(at < 0 ? page.length : at, 0, record);
    if (page.length > limit) {
      page.pop();
      hasMore = true;
    }
  }
  const rows = page.slice(0, fitting(page));
  return { rows, hasMore: hasMore || rows.length < page.length };
}

/** How many rows a page may show: one at least. */
function fitting(rows: readonly EvaluatedRow[]): number {
  let characters = 0;
  const beyond = rows.findIndex(({ samples }, i) => {
    characters += samples.reduce((sum, { completion }) => sum + completion.length, 0);
    return i > 0 && characters > PAGE_CHARACTERS;
  });
  return beyond < 0 ? rows.length : beyond;
}

const isCorrect = ({ samples }: EvaluatedRow): boolean =>
  samples.length > 0 && samples.every((sample) => sample.correct);

async function toRow(record: EvaluatedRow, dataset: TrainingDataset | null): Promise<EvaluatedRowResource> {
  const { row, id, samples, error } = record;
  const { question = null, solution = null } = (await dataset?.row(row).catch(() => null)) ?? {};
  return {
    object: "evaluation.row",
    row,
    ...(id === undefined ? {} : { id }),
    question,
    solution,
    samples,
    ...(error ? { error } : {}),
  };
}

function toResource(job: JobRecord): Evaluation {
  const { student, dataset } = job.config as EvaluationConfig;
  return {
    id: job.id,
    object: "evaluation",
    ...commonFields(job),
    student,
    dataset,
    progress: { ...NO_PROGRESS, ...(job.progress as Partial<EvaluationProgress> | null) },
    ...(job.result ? { result: job.result as NonNullable<Evaluation["result"]> } : {}),
  };
}
