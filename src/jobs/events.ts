import { and, asc, eq, gt } from "drizzle-orm";
import { guarded } from "../db/errors.ts";
import { jobEvents } from "../db/schema/jobs.ts";
import { held, holds } from "./lease.ts";
import type { JobEvent, JobRecord, Lease, NewEvent } from "./records.ts";
import { type JobsDb, transition } from "./transition.ts";

/** Types of a job's last event: nothing follows them. */
export const FINAL_EVENTS: ReadonlySet<string> = new Set(["job.completed", "job.failed", "job.cancelled"]);

/** What the column holds; a greater number, as a client may send, has nothing after it. */
const MAX_SEQ = 2 ** 31 - 1;

/** Appends to the job's events. Throws LeaseLost. */
export async function append(deps: JobsDb, lease: Lease, events: readonly NewEvent[]): Promise<JobRecord> {
  return held(await transition(deps, { where: holds(lease), set: {}, events }), lease);
}

/** Events after number `after`, in order, at most `limit`; none for a job that does not exist. */
export async function listEvents(
  { db }: JobsDb,
  jobId: string,
  query: { after: number; limit: number },
): Promise<JobEvent[]> {
  return guarded(
    db
      .select()
      .from(jobEvents)
      .where(and(eq(jobEvents.jobId, jobId), gt(jobEvents.seq, Math.min(query.after, MAX_SEQ))))
      .orderBy(asc(jobEvents.seq))
      .limit(query.limit),
  );
}
