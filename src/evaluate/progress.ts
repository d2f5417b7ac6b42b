/** How far an evaluation has come: progress every second, a curve of the accuracy so far, a few answers. */
import type { JobContext } from "../jobs/context.ts";
import type { TrainingDataset } from "../train/job-deps.ts";
import type { EvaluatedRow } from "./records.ts";
import { type RowFigures, summarise } from "./summary.ts";

export interface EvaluationProgress {
  /** Rows that are finished. */
  step: number;
  total_steps: number;
  percent: number;
  eta_seconds: number | null;
  /** Sampled by the worker that has it now, per second. */
  tokens_per_second: number | null;
}

/** Often enough for somebody who watches, and no load for a database. */
const WRITE_EVERY_MS = 1_000;
/** Points of each curve, and answers among the events, over a whole job. */
const POINTS = 100;
const SAMPLES_SHOWN = 8;
/** Of a completion that is shown; the whole of it is among the rows. */
const SHOWN_CHARACTERS = 4_000;

export function createProgress(
  context: JobContext,
  dataset: Pick<TrainingDataset, "row">,
  rows: readonly number[],
  samples: number,
  now: () => number,
) {
  const begun = now();
  const shown = new Set(rows.filter((_, i) => i % Math.ceil(rows.length / SAMPLES_SHOWN) === 0));
  let written = Number.NEGATIVE_INFINITY;
  let fresh = 0;
  let tokens = 0;

  async function write(done: number): Promise<void> {
    written = now();
    const seconds = (written - begun) / 1000;
    const progress: EvaluationProgress = {
      step: done,
      total_steps: rows.length,
      percent: (100 * done) / rows.length,
      eta_seconds: fresh === 0 ? null : (seconds / fresh) * (rows.length - done),
      tokens_per_second: seconds > 0 ? tokens / seconds : null,
    };
    await context.progress({ ...progress });
  }

  return {
    write,
    async finished(row: EvaluatedRow, figures: ReadonlyMap<number, RowFigures>): Promise<void> {
      const done = figures.size;
      fresh++;
      tokens += row.samples.reduce((sum, sample) => sum + sample.tokens, 0);
      if (done === rows.length || done % Math.max(1, Math.floor(rows.length / POINTS)) === 0) {
        await context.metrics(done, curveOf(summarise(figures.values(), samples)));
      }
      if (shown.has(row.row)) await context.event("job.sample", await answerShown(dataset, row));
      if (now() - written >= WRITE_EVERY_MS) await write(done);
    },
  };
}

function curveOf({ accuracy, answered, truncated, mean_completion_tokens }: ReturnType<typeof summarise>) {
  return { accuracy: accuracy ?? 0, answered, truncated, mean_completion_tokens };
}

async function answerShown(dataset: Pick<TrainingDataset, "row">, { row, samples: [first], error }: EvaluatedRow) {
  const { question, solution } = await dataset.row(row);
  const cut = (text: string): string => text.slice(0, SHOWN_CHARACTERS);
  const answer = first ? { ...first, completion: cut(first.completion) } : { error };
  return { row, question: cut(question), solution: cut(solution), ...answer };
}
