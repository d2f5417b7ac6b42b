/**
 * A running job is held by lease: until `lease_until` nobody else may claim it, and whoever writes to it presents the
 * token under which it was claimed. The token grows at every claim (a fencing token, Kleppmann 2016), so that a worker
 * which was thought dead and is not can do no harm: each of its writes fails in the statement itself.
 */
import { and, eq, type SQL, sql } from "drizzle-orm";
import { jobs } from "../db/schema/jobs.ts";
import type { Lease } from "./records.ts";

/**
 * How long a job lies still after its worker was killed. Longer than a statement that the database leaves unanswered
 * (12 s, db/errors.ts) plus a second try, so that one slow answer costs nobody his job; short enough that nobody waits.
 */
export const LEASE_MS = 30_000;
/** Six in a lease: five may be lost. Also how late a worker hears of a request from another process. */
export const HEARTBEAT_MS = 5_000;
/**
 * A worker that has not reached the database for this part of the lease stops; the last fifth (6 s) is left to its
 * handler for coming to a halt, and covers clocks of which one runs a little faster than the other.
 */
export const STOP_SHARE = 4 / 5;

/** The job is not ours (any more): it was given to another, or taken back. */
export class LeaseLost extends Error {
  constructor(lease: Lease, reason = "its lease is no longer ours") {
    super(`job ${lease.jobId} (token ${lease.token}): ${reason}`);
    this.name = "LeaseLost";
  }
}

/** The guard of every write by the one who runs a job. */
export function holds(lease: Lease): SQL | undefined {
  return and(eq(jobs.id, lease.jobId), eq(jobs.status, "running"), eq(jobs.leaseToken, lease.token));
}

/** The database's clock plus `leaseMs`: workers' clocks may differ. */
export function leaseEnd(leaseMs: number): SQL {
  return sql`now() + make_interval(secs => ${leaseMs / 1_000})`;
}

/** The first changed row, or LeaseLost where the guard let nothing through. */
export function held<Row>(rows: readonly Row[], lease: Lease): Row {
  const [row] = rows;
  if (row === undefined) throw new LeaseLost(lease);
  return row;
}
