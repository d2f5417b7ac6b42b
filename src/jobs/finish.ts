import { sql } from "drizzle-orm";
import { jobs } from "../db/schema/jobs.ts";
import type { ErrorBody } from "../errors.ts";
import { held, holds } from "./lease.ts";
import type { JobRecord, Lease } from "./records.ts";
import { NO_LEASE, warning } from "./requeue.ts";
import { type JobsDb, transition } from "./transition.ts";

/**
 * How a handler ended: everything is done; it stopped because that was wanted; or what it may spend is spent, which
 * counts as success (what it made is there) with a warning.
 */
export interface HandlerResult {
  outcome: "succeeded" | "paused" | "cancelled" | "budget";
  /** Kept with the job. A paused one has none yet. */
  result?: unknown;
}

/** Writes down how the job ended, or that it paused. */
export async function finish(
  deps: JobsDb,
  lease: Lease,
  { outcome, result = null }: HandlerResult,
): Promise<JobRecord> {
  if (outcome === "paused") return pauseNow(deps, lease);
  const spent = warning("budget_spent", "the job's budget is spent; it ended with its last checkpoint");
  const rows = await transition(deps, {
    where: holds(lease),
    set: {
      status: outcome === "cancelled" ? "cancelled" : "succeeded",
      result,
      finishedAt: sql`now()`,
      ...NO_LEASE,
    },
    events: outcome === "budget" ? [spent] : [],
    announce: true,
  });
  return held(rows, lease);
}

/** While the handler came to a halt its caller may have changed their mind: cancelled it, or asked it to go on. */
async function pauseNow(deps: JobsDb, lease: Lease): Promise<JobRecord> {
  const rows = await transition(deps, {
    where: holds(lease),
    set: {
      status: sql`case ${jobs.wanted} when 'pause' then 'paused' when 'cancel' then 'cancelled' else 'queued' end`,
      finishedAt: sql`case ${jobs.wanted} when 'cancel' then now() end`,
      ...NO_LEASE,
    },
    announce: true,
  });
  return held(rows, lease);
}

export async function failJob(deps: JobsDb, lease: Lease, error: ErrorBody): Promise<JobRecord> {
  const rows = await transition(deps, {
    where: holds(lease),
    set: { status: "failed", error, finishedAt: sql`now()`, ...NO_LEASE },
    announce: true,
  });
  return held(rows, lease);
}
