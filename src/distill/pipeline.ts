/**
 * The questions of a job, several at a time: while the student reads what was written, the teacher writes on. Questions are
 * handed on in their order, whichever is finished first; a finished one is in the journal and never done again.
 */
import { linked } from "../abort.ts";
import type { Journal } from "../jobs/journal.ts";
import type { QuestionRecord } from "./records.ts";

export interface Pipeline {
  journal: Journal<QuestionRecord>;
  /** How many questions there are. */
  count: number;
  /** Questions under way at once. */
  window: number;
  work(row: number, signal: AbortSignal): Promise<QuestionRecord>;
  /** Called for every question, in order; false: no more are needed. */
  take(record: QuestionRecord): Promise<boolean>;
  /** Looked at whenever a question is finished: `stop` begins no more, `drop` gives up those under way too. */
  halt(): "stop" | "drop" | null;
  signal: AbortSignal;
}

/** Samples under way at once: what the engine's batches hold; a remote server gets as many at a time. */
const SAMPLES_UNDER_WAY = 32;

/** Windows that quick questions may get ahead of a slow one: what lies there may turn out not to be needed. */
const AHEAD = 4;

/** One question more than fills the batches, so that nobody waits while the last one of them is scored. */
export const windowFor = (samplesPerQuestion: number): number => Math.ceil(SAMPLES_UNDER_WAY / samplesPerQuestion) + 1;

/** Resolves to the number of questions that were taken: those before it are all in the journal. */
export async function runPipeline({ journal, count, window, work, take, halt, signal }: Pipeline): Promise<number> {
  const dropped = new AbortController();
  const ending = linked(signal, dropped.signal);
  const underWay = new Map<number, Promise<void>>();
  let failure: { error: unknown } | null = null;
  let next = 0;
  let taken = 0;
  let halted = halt();
  let enough = false;

  const start = (row: number): void => {
    const finished = work(row, ending.signal)
      .then((record) => journal.append(record))
      .catch((error: unknown) => {
        // What was given up ends with an error, as it was told to.
        if (!dropped.signal.aborted) failure ??= { error };
      })
      .finally(() => underWay.delete(row));
    underWay.set(row, finished);
  };

  try {
    while (!failure && !enough) {
      halted ??= halt();
      if (halted === "drop") break;
      while (!halted && next < count && next < taken + window * AHEAD && underWay.size < window) {
        if (!journal.has(next)) start(next);
        next++;
        // What is done already is handed on before more is begun.
        if (journal.has(taken)) break;
      }
      if (journal.has(taken)) {
        const record = (await journal.get(taken))!;
        taken++;
        enough = !(await take(record)) || taken === count;
      } else if (underWay.size === 0) break;
      else await Promise.race(underWay.values());
    }
  } catch (error) {
    failure ??= { error };
  }
  // Whoever takes the models back must find nobody using them.
  dropped.abort();
  await Promise.all(underWay.values());
  ending.unlink();
  if (failure) throw (failure as { error: unknown }).error;
  return taken;
}
