/** The stage that makes explanations (or takes those that are there) and has them scored; what it finishes is in the journal. */
import path from "node:path";
import type { JobContext } from "../jobs/context.ts";
import { type Journal, openJournal } from "../jobs/journal.ts";
import type { DistillConfig } from "./config.ts";
import type { DistillDeps, SourceDataset, SourceRow } from "./job-deps.ts";
import { knownOf } from "./known.ts";
import { nearDuplicatesFor } from "./near.ts";
import { runPipeline, windowFor } from "./pipeline.ts";
import type { Progress } from "./progress.ts";
import { type Models, scoringTemperature, workOn } from "./question.ts";
import type { QuestionRecord } from "./records.ts";
import { createSelection, type Selected } from "./select.ts";

export interface Generated {
  /** Questions that were used. */
  questions: number;
  /** Why it ended before the last question; null: it did not. */
  stopped: "pause" | "cancel" | "budget" | null;
  failure?: undefined;
}

/** Folder of a job's journal; it goes when the datasets are written. */
export const journalFolder = (artifacts: string, job: string): string => path.join(artifacts, "jobs", job, "questions");

export const questionsOf = (
  { preview }: Pick<DistillConfig, "preview">,
  { count }: Pick<SourceDataset, "count">,
): number => Math.min(count, preview ?? count);

/** What making rows needs, and no more: the command line has no server's parts. */
export type GenerateDeps = Pick<DistillDeps, "teach" | "serve" | "patiently" | "artifacts">;

export async function generate(
  deps: GenerateDeps,
  context: Pick<JobContext, "job" | "signal" | "wanted">,
  config: DistillConfig,
  dataset: SourceDataset,
  progress: Progress,
): Promise<Generated> {
  const { signal, job } = context;
  const count = questionsOf(config, dataset);
  const models: Models = { teacher: null, student: null };
  let loading: Promise<Models> | null = null;
  // Scores that are known already need no model.
  const loaded = (): Promise<Models> => (loading ??= load(deps, config, models, signal));
  let journal: Journal<QuestionRecord> | null = null;
  try {
    journal = await openJournal<QuestionRecord>(journalFolder(deps.artifacts, job.id), job.leaseToken);
    const selection = createSelection(config, nearDuplicatesFor(config));
    let stopped: Generated["stopped"] = null;
    const questions = await runPipeline({
      journal,
      count,
      window: windowFor(config.samples_per_question),
      signal,
      async work(row, ending) {
        const source = await dataset.row(row);
        const { question, solution, reasoning_trace: trace } = source;
        const brought = { trace: trace ?? null, known: knownOf(source, config, scoringTemperature(config)) };
        const asked = { row, question, solution, ...(config.from === "rows" ? brought : {}) };
        const asking = { client: job.id, priority: "job", signal: ending } as const;
        const { record, spent } = await deps.patiently(() => workOn(loaded, config, asked, asking), ending);
        progress.spent(spent);
        return record;
      },
      async take(record) {
        const row = await dataset.row(record.row);
        await progress.question(record, row, selection.take(record, row), selection);
        return !selection.full;
      },
      halt() {
        stopped ??= context.wanted() ?? (progress.isSpent(config.budget) ? "budget" : null);
        return stopped && (stopped === "cancel" ? "drop" : "stop");
      },
    });
    // The last question may have met the target just as somebody asked for a halt.
    return { questions, stopped: questions === count || selection.full ? null : stopped };
  } finally {
    await journal?.close();
    models.student?.release();
    models.teacher?.release();
  }
}

async function load(deps: GenerateDeps, config: DistillConfig, models: Models, signal: AbortSignal): Promise<Models> {
  if (config.teacher !== null) models.teacher = await deps.teach(config.teacher, signal);
  if (config.student !== null) models.student = await deps.serve(config.student, signal);
  return models;
}

/** A job that ends takes its journal with it, also from those who only look. */
export class JournalGone extends Error {}

export interface Outcome {
  row: SourceRow;
  record: QuestionRecord;
  selected: Selected;
}

/** The first `questions` records once more, as selection sees them. */
export async function* outcomes(
  deps: Pick<DistillDeps, "artifacts">,
  job: string,
  config: DistillConfig,
  dataset: SourceDataset,
  questions: number,
): AsyncGenerator<Outcome> {
  const journal = await openJournal<QuestionRecord>(journalFolder(deps.artifacts, job), null);
  try {
    const selection = createSelection(config, nearDuplicatesFor(config));
    for (let i = 0; i < questions; i++) {
      const record = await journal.get(i);
      if (!record) throw new JournalGone();
      const row = await dataset.row(i);
      yield { row, record, selected: selection.take(record, row) };
    }
  } finally {
    await journal.close();
  }
}
