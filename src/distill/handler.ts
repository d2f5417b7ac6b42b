/** A distillation job from where it stands to its end: questions → explanations → scores → rows, and what was asked for with them. */
import { rm } from "node:fs/promises";
import { type ErrorBody, fail, PreceptorError } from "../errors.ts";
import type { JobContext } from "../jobs/context.ts";
import { isAway } from "../jobs/fenced.ts";
import type { HandlerResult } from "../jobs/finish.ts";
import type { DistillConfig } from "./config.ts";
import { type Generated, generate, journalFolder, questionsOf } from "./generate.ts";
import type { DistillDeps } from "./job-deps.ts";
import { type Written, writeDatasets } from "./output.ts";
import { createProgress, type Progress } from "./progress.ts";
import { trainStudent } from "./student.ts";

export interface DistillResult {
  output_dataset: string | null;
  error_dataset: string | null;
  accepted: number;
  rejected: Record<string, number>;
  questions_used: number;
  questions: number;
  /** Why it ended with the rows it has. */
  ended_by: "questions_used" | "target_rows" | "preview" | "budget" | "cancelled" | "failed";
}

export async function runDistillation(deps: DistillDeps, context: JobContext): Promise<HandlerResult> {
  const config = context.job.config as DistillConfig;
  const dataset = await deps.dataset(config.dataset);
  const progress = createProgress(context, config, questionsOf(config, dataset), () => performance.now());
  const before = progress.now.made.rows as Made | undefined;
  requireSame(progress, dataset.contentHash);
  const rows = before ?? (await makeRows(deps, context, config, dataset, progress));
  if (!rows) return { outcome: "paused" };
  await rm(journalFolder(deps.artifacts, context.job.id), { recursive: true, force: true });
  const { outcome, result, failure } = rows;
  if (failure) throw fail(failure.code, failure.message);
  if (!config.finetune || outcome !== "succeeded") return { outcome, result };
  if (result.output_dataset === null) {
    throw fail(
      "invalid_dataset",
      `no row was accepted, so there is nothing to train on; ${result.error_dataset} says why`,
    );
  }
  const { finetune } = config;
  const trained = await trainStudent({
    deps,
    context,
    config,
    finetune,
    progress,
    source: dataset,
    output: result.output_dataset,
  });
  return { outcome: trained.stopped ?? "succeeded", result: { ...result, ...trained.result } };
}

interface Made {
  outcome: "succeeded" | "cancelled" | "budget";
  result: DistillResult;
  /** What ended it; the job fails with it, and has its rows all the same. */
  failure?: ErrorBody;
}

/** How far it came with its questions, and why no further. */
export interface Ending {
  questions: number;
  stopped: Generated["stopped"];
  failure?: ErrorBody | undefined;
}

/** Null: paused. */
async function makeRows(
  deps: DistillDeps,
  context: JobContext,
  config: DistillConfig,
  dataset: Awaited<ReturnType<DistillDeps["dataset"]>>,
  progress: Progress,
): Promise<Made | null> {
  const { job, signal } = context;
  await progress.made("dataset_hash", dataset.contentHash);
  const { questions, stopped, failure } = (progress.now.made.ending as Ending | undefined) ?? (await make());
  await progress.update({ stage: stopped === "pause" ? "generate" : "write" });
  if (stopped === "pause") return null;
  // Datasets stay as they were first written: a worker that is killed between them must not come to another end.
  await progress.made("ending", { questions, stopped, ...(failure ? { failure } : {}) });
  const written = await writeDatasets(deps, job, config, dataset, questions, signal);
  const made: Made = {
    outcome: stopped === "cancel" ? "cancelled" : stopped === "budget" ? "budget" : "succeeded",
    result: resultOf(config, written, questions, dataset.count, failure ? "failed" : stopped),
    ...(failure ? { failure } : {}),
  };
  const { accepted, rejected } = written;
  await progress.update({ accepted, rejected });
  await progress.made("rows", made);
  return made;

  async function make(): Promise<Ending> {
    try {
      return await generate(deps, context, config, dataset, progress);
    } catch (error) {
      // While the database is away nothing has failed: the job is given back, and goes on.
      if (signal.aborted || !(error instanceof PreceptorError) || isAway(error)) throw error;
      // A job that fails is over for good; hours of finished rows are not thrown away for it.
      return { questions: progress.now.questions, stopped: null, failure: error.toBody() };
    }
  }
}

function resultOf(
  { target_rows: target, preview }: DistillConfig,
  { output, errors, accepted, rejected }: Written,
  used: number,
  all: number,
  stopped: "cancel" | "budget" | "failed" | null,
): DistillResult {
  return {
    output_dataset: output,
    error_dataset: errors,
    accepted,
    rejected,
    questions_used: used,
    questions: all,
    ended_by:
      stopped === "cancel"
        ? "cancelled"
        : (stopped ??
          (target !== null && accepted >= target ? "target_rows" : preview !== null ? "preview" : "questions_used")),
  };
}

/** What was begun with other rows cannot go on: half of them would be of another question. */
function requireSame({ now }: Progress, contentHash: string): void {
  const before = now.made.dataset_hash;
  if (before === undefined || before === contentHash) return;
  throw fail("conflict", "the dataset has changed since this job began, so it cannot go on; start a new job with it");
}
