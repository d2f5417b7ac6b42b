import { fail, PreceptorError } from "../errors.ts";
import { createContext, type JobContext } from "./context.ts";
import { fenced, isAway } from "./fenced.ts";
import type { HandlerResult } from "./finish.ts";
import type { Hold } from "./hold.ts";
import { LeaseLost } from "./lease.ts";
import type { HeldJobs } from "./queue.ts";
import type { JobRecord } from "./records.ts";

/** Does the work of a job, from its last checkpoint on. Throws a PreceptorError to fail with it. */
export type JobHandler = (context: JobContext) => Promise<HandlerResult>;

export interface RunnerLog {
  debug(details: object, message: string): void;
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
  error(details: object, message: string): void;
}

export interface RunJobDeps {
  queue: HeldJobs;
  handler: JobHandler;
  log: RunnerLog;
  /** The server ends. */
  ending: AbortSignal;
}

/** Runs the handler and writes down what came of it. Never throws: what cannot be written, the sweep settles. */
export async function runJob(deps: RunJobDeps, job: JobRecord, hold: Hold): Promise<void> {
  const { queue, handler, log, ending } = deps;
  const about = { job: job.id, kind: job.kind, attempt: job.attempts };
  log.info(about, "job begins");
  const signal = AbortSignal.any([ending, hold.signal]);
  try {
    let settled: JobRecord;
    try {
      const result = await handler(createContext(queue, job, hold, signal));
      settled = await fenced(hold, () => queue.finish(hold.lease, result));
    } catch (error) {
      settled = await fenced(hold, afterError(deps, about, hold, error));
    }
    log.info({ ...about, status: settled.status }, "job ends here");
  } catch (error) {
    if (error instanceof LeaseLost) log.warn({ ...about, reason: error.message }, "job let go: it is no longer ours");
    else
      log.error({ ...about, err: error }, "what became of a job could not be written down; it will be taken up again");
  } finally {
    hold.stop();
  }
}

function afterError(
  { queue, log, ending }: RunJobDeps,
  about: object,
  { lease, signal }: Hold,
  error: unknown,
): () => Promise<JobRecord> {
  // Whatever an aborted handler throws is the abort's doing. A lost lease is found out by the write itself.
  if (ending.aborted || signal.aborted) return () => queue.giveBack(lease);
  if (isAway(error)) {
    log.warn({ ...about, err: error }, "job interrupted: the database was away");
    return () => queue.giveUp(lease, "the database was away while the job ran");
  }
  if (error instanceof PreceptorError) {
    log.warn({ ...about, err: error }, "job failed");
    return () => queue.fail(lease, error.toBody());
  }
  log.error({ ...about, err: error }, "job failed unexpectedly");
  const body = fail(
    "internal_error",
    "an error of the server's own ended the job; the server's log tells more",
  ).toBody();
  return () => queue.fail(lease, body);
}
