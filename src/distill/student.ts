/** What a job does with its rows where that was asked for: a student learns from them, and is measured before and after. */
import path from "node:path";
import { fail } from "../errors.ts";
import type { EvaluatedRow } from "../evaluate/records.ts";
import { evaluate, evaluationOf } from "../evaluate/run.ts";
import {
  type EvaluationSummary,
  figuresOf,
  type PairedDifference,
  pairedDifference,
  type RowFigures,
} from "../evaluate/summary.ts";
import type { JobContext } from "../jobs/context.ts";
import type { HandlerResult } from "../jobs/finish.ts";
import { openJournal, readJournal } from "../jobs/journal.ts";
import type { Control, DistillConfig, Finetune } from "./config.ts";
import { writeControl } from "./controls.ts";
import { type Finetuned, finetune } from "./finetune.ts";
import type { DistillDeps, SourceDataset } from "./job-deps.ts";
import type { Progress } from "./progress.ts";

export interface StudentResult {
  /** Registered, and ready to be asked. */
  student: string;
  checkpoint: string;
  evaluation?: Measured;
  controls?: Partial<Record<Control, ControlResult>>;
}

export interface Measured {
  before: EvaluationSummary;
  after: EvaluationSummary;
  /** After − before, on the same rows with the same seeds. */
  uplift: PairedDifference;
}

export interface ControlResult {
  dataset: string;
  student: string;
  evaluation?: EvaluationSummary;
  /** Control − before. */
  uplift?: PairedDifference;
  /** The distilled student − this one. */
  behind?: PairedDifference;
}

type Stopped = HandlerResult["outcome"];
/** Thrown where somebody asked for a halt, so that what follows need not ask. */
class Halt extends Error {
  readonly outcome: Stopped;
  constructor(outcome: Stopped) {
    super(outcome);
    this.outcome = outcome;
  }
}

const OUTCOMES = { pause: "paused", cancel: "cancelled", budget: "budget" } as const;

/** The part that the job is about; the others are its controls. */
const DISTILLED = "distilled";

export interface Training {
  deps: DistillDeps;
  context: JobContext;
  config: DistillConfig;
  finetune: Finetune;
  progress: Progress;
  source: SourceDataset;
  /** Id of the job's rows. */
  output: string;
}

/** Everything that is done stays done: each part is kept with the job as soon as it is there. */
export async function trainStudent(
  job: Training,
): Promise<{ stopped: Stopped; result: Partial<StudentResult> } | { stopped: null; result: StudentResult }> {
  try {
    return { stopped: null, result: await allOf(job) };
  } catch (error) {
    if (error instanceof Halt) {
      return { stopped: error.outcome, result: { ...(job.progress.now.made[`student-${DISTILLED}`] as Finetuned) } };
    }
    throw error;
  }
}

async function allOf(job: Training): Promise<StudentResult> {
  const { config, finetune: asked } = job;
  const before = config.evaluate && (await measure(job, "before", asked.training.model));
  const trained = await learn(job, DISTILLED, job.output, true);
  const after = config.evaluate && (await measure(job, DISTILLED, trained.student));
  const result: StudentResult = { ...trained };
  if (before && after) result.evaluation = { before, after, uplift: await difference(job, "before", DISTILLED) };
  for (const control of asked.controls) {
    result.controls = { ...result.controls, [control]: await compared(job, control, before !== null) };
  }
  return result;
}

async function compared(job: Training, control: Control, measured: boolean): Promise<ControlResult> {
  const { deps, context, config, progress, source } = job;
  const output = await deps.dataset(job.output);
  const dataset = await kept(progress, `dataset-${control}`, () =>
    writeControl(deps, context.job.id, config, control, { source, output }, context.signal),
  );
  if (dataset === null) {
    throw fail("invalid_dataset", `no row of ${source.id} has the ${control} that the control would learn from`, {
      param: "finetune.controls",
    });
  }
  const { student } = await learn(job, control, dataset, false);
  if (!measured) return { dataset, student };
  return {
    dataset,
    student,
    evaluation: await measure(job, control, student),
    uplift: await difference(job, "before", control),
    behind: await difference(job, control, DISTILLED),
  };
}

async function kept<T>(progress: Progress, name: string, make: () => Promise<T>): Promise<T> {
  if (name in progress.now.made) return progress.now.made[name] as T;
  const value = await make();
  await progress.made(name, value);
  return value;
}

function learn(job: Training, part: string, dataset: string, publish: boolean): Promise<Finetuned> {
  const { deps, context, config, finetune: asked, progress } = job;
  return kept(progress, `student-${part}`, async () => {
    if (progress.isSpent(config.budget)) throw new Halt("budget");
    await progress.update({ stage: "finetune", part, percent: 0, eta_seconds: null });
    const run = await finetune(
      deps.training,
      context,
      { ...asked.training, dataset },
      part,
      progress,
      config.budget,
      publish,
    );
    if (run.stopped === null) return run.made;
    // The job ends here: what it has paid for is told.
    if (run.stopped === "budget" && run.made) await progress.made(`student-${part}`, run.made);
    throw new Halt(run.stopped);
  });
}

const folderOf = ({ deps, context }: Training, part: string): string =>
  path.join(deps.artifacts, "jobs", context.job.id, `answers-${part}`);

function measure(job: Training, part: string, student: string): Promise<EvaluationSummary> {
  const { deps, context, config, progress } = job;
  const asked = config.evaluate!;
  const halted = () => context.wanted() ?? (progress.isSpent(config.budget) ? "budget" : null);
  return kept(progress, `evaluation-${part}`, async () => {
    await progress.update({ stage: "evaluate", part, percent: 0, eta_seconds: null });
    const dataset = await deps.evaluated(asked);
    const held = await deps.answer(student, context.signal);
    const journal = await openJournal<EvaluatedRow>(folderOf(job, part), context.job.leaseToken);
    try {
      const { summary, complete } = await evaluate(
        {
          student: held,
          journal,
          signal: context.signal,
          patiently: deps.patiently,
          stop: halted,
          finished: (_, figures) => progress.tell({ percent: (100 * figures.size) / dataset.rows.length }),
        },
        evaluationOf(asked, dataset),
      );
      if (!complete) throw new Halt(OUTCOMES[halted() ?? "pause"]);
      return summary;
    } finally {
      await journal.close();
      held.release();
    }
  });
}

/** Second − first. */
async function difference(job: Training, first: string, second: string): Promise<PairedDifference> {
  const [a, b] = await Promise.all([figures(job, first), figures(job, second)]);
  return pairedDifference(a, b, job.config.evaluate!.samples);
}

async function figures(job: Training, part: string): Promise<RowFigures[]> {
  const found: RowFigures[] = [];
  for await (const row of readJournal<EvaluatedRow>(folderOf(job, part))) found.push(figuresOf(row));
  return found;
}
