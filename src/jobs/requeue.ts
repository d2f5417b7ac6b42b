/** A job comes back from a worker that did not bring it to an end: given back by the worker, or found without one. */
import { sql } from "drizzle-orm";
import type { PgUpdateSetSource } from "drizzle-orm/pg-core";
import { jobs } from "../db/schema/jobs.ts";
import { fail } from "../errors.ts";
import { held, holds } from "./lease.ts";
import type { JobRecord, Lease, NewEvent } from "./records.ts";
import { type JobsDb, transition } from "./transition.ts";

/**
 * A job that takes its worker with it (memory, a crash in native code) would do so for ever. One crash may be chance,
 * such as a machine that is switched off, and so may two; the third without one step in between is the job's doing.
 */
export const MAX_CRASHES = 3;

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
  const crashes = crashed ? sql`${jobs.crashes} + 1` : sql`${jobs.crashes}`;
  const hopeless = crashed ? sql`${crashes} >= ${MAX_CRASHES}::integer` : sql`false`;
  const status = sql`case when ${jobs.wanted} = 'cancel' then 'cancelled' when ${hopeless} then 'failed'
    when ${jobs.wanted} = 'pause' then 'paused' else 'queued' end`;
  return {
    status,
    crashes,
    error: sql`case when (${status}) = 'failed' then ${sql.param(HOPELESS, jobs.error)}::json end`,
    finishedAt: sql`case when (${status}) in ('failed', 'cancelled') then now() end`,
    ...NO_LEASE,
  };
}

/** A job that does not run has no holder, and nothing is asked of it. The token stays: it only ever grows. */
export const NO_LEASE = { wanted: null, leaseOwner: null, leaseUntil: null } as const;

const HOPELESS = fail(
  "interrupted",
  `the job was interrupted ${MAX_CRASHES} times in a row without getting any further; the server's log may tell why (often memory), then create it again or fork its last checkpoint`,
).toBody();
