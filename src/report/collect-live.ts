/** The rows of a job that has not written its datasets yet, from its journal. */
import type { DistillConfig } from "../distill/config.ts";
import { JournalGone, outcomes } from "../distill/generate.ts";
import type { SourceDataset } from "../distill/job-deps.ts";
import { rowsOf } from "../distill/output.ts";
import { gather, type RowFigures } from "./figures.ts";

export interface LiveFigures {
  accepted: RowFigures;
  rejected: RowFigures;
  /** Questions that were looked at, from the first. */
  questions: number;
  /** The journal was taken away meanwhile: the datasets are there, or nobody keeps anything of the job. */
  gone: boolean;
}

/** Explanations that are looked at: rows are selected in order, so it is the first ones; some three seconds. */
export const MAX_LIVE_SAMPLES = 10_000;

export async function collectLive(
  place: { artifacts: string },
  job: string,
  config: DistillConfig,
  dataset: SourceDataset,
  questions: number,
  signal: AbortSignal,
): Promise<LiveFigures> {
  const [accepted, rejected] = [gather(), gather()];
  const seen = { accepted: 0, rejected: 0, questions: 0 };
  let gone = false;
  try {
    for await (const outcome of outcomes(place, job, config, dataset, questions)) {
      signal.throwIfAborted();
      const rows = rowsOf(outcome, job, config);
      for (const row of rows.accepted) accepted.add(row, seen.accepted++);
      for (const row of rows.rejected) rejected.add(row, seen.rejected++);
      seen.questions++;
      if (seen.accepted + seen.rejected >= MAX_LIVE_SAMPLES) break;
    }
  } catch (error) {
    if (!(error instanceof JournalGone)) throw error;
    gone = true;
  }
  return { accepted: accepted.finish(), rejected: rejected.finish(), questions: seen.questions, gone };
}
