/** Everything the report of a distillation job tells, as far as the job has come. */
import type { DatasetOpener } from "../datasets/open.ts";
import type { Control, DistillConfig } from "../distill/config.ts";
import type { Finetuned } from "../distill/finetune.ts";
import type { DistillResult } from "../distill/handler.ts";
import type { DistillProgress } from "../distill/progress.ts";
import type { StudentResult } from "../distill/student.ts";
import { PreceptorError } from "../errors.ts";
import type { EvaluationSummary } from "../evaluate/summary.ts";
import type { JobQueue } from "../jobs/queue.ts";
import type { JobRecord } from "../jobs/records.ts";
import { collectCurves } from "./collect-curves.ts";
import { collectDataset, type DatasetFigures } from "./collect-dataset.ts";
import { collectLive, type LiveFigures } from "./collect-live.ts";
import type { Curve } from "./curve-svg.ts";
import type { Evaluations } from "./evaluation.ts";

export interface JobReport {
  job: JobRecord;
  config: DistillConfig;
  progress: Partial<DistillProgress>;
  /** Once the datasets are written. */
  result: DistillResult | null;
  /** `live`: from the journal; null: there are none, or they have been deleted. */
  rows: { accepted: DatasetFigures | null; rejected: DatasetFigures | null } | { live: LiveFigures } | null;
  evaluations: Evaluations;
  student: Finetuned | null;
  /** By part. */
  controls: Partial<Record<Control, { dataset?: string; student?: string }>>;
  curves: Curve[];
}

export interface CollectJobDeps {
  datasets: DatasetOpener;
  queue: Pick<JobQueue, "metrics" | "find">;
  artifacts: string;
}

const CONTROLS: readonly Control[] = ["solutions", "reasoning_trace"];

export async function collectJob(deps: CollectJobDeps, job: JobRecord, signal: AbortSignal): Promise<JobReport> {
  const config = job.config as DistillConfig;
  const progress = (job.progress ?? {}) as Partial<DistillProgress>;
  const made = progress.made ?? {};
  const result = rowsMade(job);
  const rows = result ? await storedRows(deps, result, signal) : await liveRows(deps, job, config, progress, signal);
  if (rows && "live" in rows && rows.live.gone) {
    const now = await deps.queue.find(job.id);
    // It has just been written down.
    if (now && rowsMade(now)) return collectJob(deps, now, signal);
  }
  const whole = (job.result ?? {}) as Partial<StudentResult>;
  const summary = (part: string): EvaluationSummary | undefined =>
    made[`evaluation-${part}`] as EvaluationSummary | undefined;
  const evaluations: Evaluations = {
    before: summary("before"),
    after: summary("distilled"),
    uplift: whole.evaluation?.uplift,
    controls: {},
    asked: config.finetune?.controls ?? [],
  };
  const controls: JobReport["controls"] = {};
  for (const control of CONTROLS) {
    const { uplift, behind } = whole.controls?.[control] ?? {};
    const evaluation = summary(control);
    evaluations.controls[control] = {
      ...(evaluation ? { evaluation } : {}),
      ...(uplift ? { uplift } : {}),
      ...(behind ? { behind } : {}),
    };
    const dataset = made[`dataset-${control}`] as string | null | undefined;
    const student = made[`student-${control}`] as Finetuned | undefined;
    controls[control] = { ...(dataset ? { dataset } : {}), ...(student ? { student: student.student } : {}) };
  }
  return {
    ...{ job, config, progress, result, rows, evaluations, controls },
    student: (made["student-distilled"] as Finetuned | undefined) ?? null,
    curves: await collectCurves(deps.queue, job.id),
  };
}

export function rowsMade({ progress }: Pick<JobRecord, "progress">): DistillResult | null {
  const made = (progress as DistillProgress | null)?.made.rows as { result: DistillResult } | undefined;
  return made?.result ?? null;
}

async function storedRows(
  { datasets }: CollectJobDeps,
  { output_dataset: output, error_dataset: errors }: DistillResult,
  signal: AbortSignal,
): Promise<{ accepted: DatasetFigures | null; rejected: DatasetFigures | null }> {
  const read = async (id: string | null): Promise<DatasetFigures | null> =>
    id === null
      ? null
      : unlessGone(async () => {
          const { bytes } = await datasets.find(id);
          return collectDataset(await datasets.openDataset(id), bytes, signal);
        });
  return { accepted: await read(output), rejected: await read(errors) };
}

async function liveRows(
  { datasets, artifacts }: CollectJobDeps,
  { id }: JobRecord,
  config: DistillConfig,
  { questions = 0 }: Partial<DistillProgress>,
  signal: AbortSignal,
): Promise<{ live: LiveFigures } | null> {
  if (questions === 0) return null;
  return unlessGone(async () => {
    const dataset = await datasets.openDataset(config.dataset);
    return { live: await collectLive({ artifacts }, id, config, dataset, questions, signal) };
  });
}

/** Null: it has been deleted, which is no reason not to report what is left. */
async function unlessGone<T>(read: () => Promise<T>): Promise<T | null> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof PreceptorError && error.code === "not_found") return null;
    throw error;
  }
}
