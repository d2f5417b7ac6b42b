/**
 * What people ask of a job. One that nobody runs changes at once; of one that runs it is noted in `wanted`, and the one
 * who runs it obeys at the next step. Which of the two it is, is decided in the statement: the job may be claimed meanwhile.
 */
import { and, eq, inArray, or, type SQL, sql } from "drizzle-orm";
import type { PgUpdateSetSource } from "drizzle-orm/pg-core";
import { jobs } from "../db/schema/jobs.ts";
import { fail } from "../errors.ts";
import { get } from "./read.ts";
import type { JobProgress, JobRecord } from "./records.ts";
import { type JobsDb, transition } from "./transition.ts";

const isRunning = sql`${jobs.status} = 'running'`;

/** queued → paused at once, running → at its next step; then `resume`. Asking twice is one request. */
export function pause(deps: JobsDb, id: string): Promise<JobRecord> {
  return request(deps, id, "pause", {
    where: or(eq(jobs.status, "queued"), and(isRunning, sql`${jobs.wanted} is null`)),
    set: {
      status: sql`case when ${isRunning} then 'running' else 'paused' end`,
      wanted: sql`case when ${isRunning} then 'pause' end`,
    },
    isDone: (job) => job.status === "paused" || job.wanted === "pause",
  });
}

/** For good; a running job stops at its next step and keeps its last checkpoint. */
export function cancel(deps: JobsDb, id: string): Promise<JobRecord> {
  return request(deps, id, "cancel", {
    where: or(
      inArray(jobs.status, ["queued", "paused"]),
      and(isRunning, sql`${jobs.wanted} is distinct from 'cancel'`),
    ),
    set: {
      status: sql`case when ${isRunning} then 'running' else 'cancelled' end`,
      wanted: sql`case when ${isRunning} then 'cancel' end`,
      finishedAt: sql`case when not (${isRunning}) then now() end`,
    },
    isDone: (job) => job.status === "cancelled" || job.wanted === "cancel",
  });
}

/** paused → queued, with its crashes forgiven; a running job that was about to pause goes on. */
export function resume(deps: JobsDb, id: string): Promise<JobRecord> {
  return request(deps, id, "resume", {
    where: or(eq(jobs.status, "paused"), and(isRunning, eq(jobs.wanted, "pause"))),
    set: { status: sql`case when ${isRunning} then 'running' else 'queued' end`, wanted: null, crashes: 0 },
    isDone: () => false,
  });
}

/**
 * A job that nobody runs goes on with this progress, which brings it to its end: what it has made is yet to be written down.
 * undefined: it runs, has ended, or was claimed since it was looked at.
 */
export async function wrapUp(
  deps: JobsDb,
  { id, leaseToken }: JobRecord,
  progress: JobProgress,
): Promise<JobRecord | undefined> {
  const [changed] = await transition(deps, {
    where: and(eq(jobs.id, id), eq(jobs.leaseToken, leaseToken), inArray(jobs.status, ["queued", "paused"])),
    set: { status: "queued", progress, crashes: 0 },
    announce: true,
  });
  return changed;
}

interface Request {
  where: SQL | undefined;
  set: PgUpdateSetSource<typeof jobs>;
  /** It was asked for before: nothing to do, no second event. */
  isDone(job: JobRecord): boolean;
}

async function request(deps: JobsDb, id: string, verb: string, { where, set, isDone }: Request): Promise<JobRecord> {
  const [changed] = await transition(deps, { where: and(eq(jobs.id, id), where), set, announce: true });
  if (changed) {
    if (changed.status === "running") deps.bell.ring(`wanted:${id}`);
    return changed;
  }
  const job = await get(deps, id);
  if (isDone(job)) return job;
  const state = job.wanted === "cancel" ? "being cancelled" : job.status;
  throw fail("conflict", `cannot ${verb} this job: it is ${state}`);
}
