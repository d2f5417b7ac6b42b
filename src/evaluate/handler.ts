/** An evaluation from where it stands to its end. */
import path from "node:path";
import { fail } from "../errors.ts";
import type { JobContext } from "../jobs/context.ts";
import type { HandlerResult } from "../jobs/finish.ts";
import { openJournal } from "../jobs/journal.ts";
import type { ServedModel, TrainingDataset } from "../train/job-deps.ts";
import { type EvaluationConfig, rowsOf } from "./config.ts";
import { createProgress } from "./progress.ts";
import type { EvaluatedRow } from "./records.ts";
import { type EvaluateDeps, evaluate, evaluationOf } from "./run.ts";

export const EVALUATION = "evaluation";

export interface EvaluationDeps extends Pick<EvaluateDeps, "patiently"> {
  /** Waits until it is loaded; held until `release`. Throws where it cannot sample. */
  serve(student: string, signal: AbortSignal): Promise<ServedModel>;
  /** Of the files that a name stands for. */
  weightsHash(student: string): Promise<string | null>;
  dataset(id: string): Promise<TrainingDataset>;
  /** Folder of what jobs leave behind. */
  artifacts: string;
  /** Milliseconds that never jump. */
  now(): number;
}

/** Rows as they are finished; they stay when the job has ended. */
export const rowsFolder = (artifacts: string, job: string): string => path.join(artifacts, "jobs", job, "rows");

export async function runEvaluation(deps: EvaluationDeps, context: JobContext): Promise<HandlerResult> {
  const { job, signal } = context;
  const config = job.config as EvaluationConfig;
  const dataset = await deps.dataset(config.dataset);
  const student = await deps.serve(config.student, signal);
  try {
    requireSame("dataset", config.content_hash, dataset.contentHash);
    requireSame("student", config.weights_hash, await deps.weightsHash(config.student));
    const journal = await openJournal<EvaluatedRow>(rowsFolder(deps.artifacts, job.id), job.leaseToken);
    try {
      const rows = await rowsOf(dataset, config);
      const progress = createProgress(context, dataset, rows, config.samples, deps.now);
      const { summary, complete } = await evaluate(
        {
          student,
          journal,
          signal,
          patiently: deps.patiently,
          stop: () => context.wanted(),
          finished: progress.finished,
        },
        evaluationOf(config, { rows, row: (index) => dataset.row(index) }),
      );
      await progress.write(summary.counts.rows);
      if (complete) return { outcome: "succeeded", result: summary };
      if (context.wanted() === "cancel") return { outcome: "cancelled", result: summary };
      return { outcome: "paused" };
    } finally {
      await journal.close();
    }
  } finally {
    student.release();
  }
}

/** Half of the rows answered by one student and half by another would be an accuracy of neither. */
function requireSame(what: "dataset" | "student", then: string | null, now: string | null): void {
  if (then === now) return;
  throw fail(
    "conflict",
    `the ${what} has changed since this evaluation was ordered, so it cannot go on; start a new one`,
  );
}
