/** A job comes back from a worker that did not bring it to an end: given back by the worker, or found without one. */
import { type SQL, sql } from "drizzle-orm";
import type { PgUpdateSetSource } from "drizzle-orm/pg-core";
import { jobs } from "../db/schema/jobs.ts";
import { type ErrorBody, fail } from "../errors.ts";
import { held, holds } from "./lease.ts";
import type { JobRecord, Lease, NewEvent } from "./records.ts";
import { type JobsDb, transition } from "./transition.ts";

/**
 * A job that takes its worker with it (memory, a crash in native code) would do so for ever, and it does so at the same
 * place; machines that are switched off and servers that are killed hit it anywhere. Five deaths in a row within one step
 * are the job's doing: twenty random ones among ten steps come to that once in five hundred jobs.
 */
export const MAX_CRASHES = 5;
/**
 * While models load, before the first step of an attempt: a stretch of seconds that every attempt passes through, and that
 * may be half of its life where servers are killed again and again. Ten in a row are chance once in a thousand.
 */
export const MAX_CRASHES_STARTING = 10;

/** The worker stops in good order; the job is the next to be claimed and goes on from its last checkpoint. */
export async function giveBack(deps: JobsDb, lease: Lease): Promise<JobRecord> {
  const rows = await transition(deps, { where: holds(lease), set: backToQueue({ crashed: false }), announce: true });
  return held(rows, lease);
}

/** As `giveBack`, but something around the job failed, not the job: counted, so that it cannot go on for ever. */
export async function giveUp(deps: JobsDb, lease: Lease, message: string): Promise<JobRecord> {
  const rows = await transition(deps, {
    where: holds(lease),
    set: backToQueue({ crashed: true }),
    events: [warning("interrupted", message)],
    announce: true,
  });
  return held(rows, lease);
}

/**
 * Takes jobs back from workers that are gone. Their lease has run out; with `exclusive` (nobody else uses the database,
 * as at the start on PGlite) every running job's worker is. SKIP LOCKED: two that sweep at once do not wait for each other.
 */
export async function sweep(deps: JobsDb, { exclusive = false } = {}): Promise<JobRecord[]> {
  const lost = deps.db
    .select({ id: jobs.id })
    .from(jobs)
    .where(exclusive ? sql`status = 'running'` : sql`status = 'running' and ${jobs.leaseUntil} < now()`)
    .for("update", { skipLocked: true });
  return transition(deps, {
    where: sql`${jobs.id} in (${lost})`,
    set: backToQueue({ crashed: true }),
    events: [
      warning(
        "worker_lost",
        "the worker that ran this job is gone; what comes after its last checkpoint is done again",
      ),
    ],
    announce: true,
  });
}

export function warning(code: string, message: string): NewEvent {
  return { type: "job.warning", data: { code, message } };
}

/** What was asked of the one who ran it is done now that nobody runs it. */
function backToQueue({ crashed }: { crashed: boolean }): PgUpdateSetSource<typeof jobs> {
  const here = jobs.attemptStep;
  const again = sql`case when ${jobs.crashStep} is not distinct from ${here} then ${jobs.crashes} + 1 else 1 end`;
  const most = sql`case when ${here} is null then ${MAX_CRASHES_STARTING}::integer else ${MAX_CRASHES}::integer end`;
  const hopeless = crashed ? sql`(${again}) >= (${most})` : sql`false`;
  const status = sql`case when ${jobs.wanted} = 'cancel' then 'cancelled' when ${hopeless} then 'failed'
    when ${jobs.wanted} = 'pause' then 'paused' else 'queued' end`;
  const error = sql`case when ${here} is null then ${given(NEVER_BEGAN)}::json else ${given(SAME_STEP)}::json end`;
  return {
    status,
    ...(crashed ? { crashes: again, crashStep: here } : {}),
    error: sql`case when (${status}) = 'failed' then ${error} end`,
    finishedAt: sql`case when (${status}) in ('failed', 'cancelled') then now() end`,
    ...NO_LEASE,
  };
}

/** A job that does not run has no holder, and nothing is asked of it. The token stays: it only ever grows. */
export const NO_LEASE = { wanted: null, leaseOwner: null, leaseUntil: null } as const;

const given = (error: ErrorBody): SQL => sql`${sql.param(error, jobs.error)}`;
const hopelessAt = (place: string): ErrorBody =>
  fail(
    "interrupted",
    `the job lost its worker ${place}; the server's log may tell why (often memory), then create it again or fork its last checkpoint`,
  ).toBody();
const SAME_STEP = hopelessAt(`${MAX_CRASHES} times in a row within the same step`);
const NEVER_BEGAN = hopelessAt(`${MAX_CRASHES_STARTING} times in a row before its first step`);
