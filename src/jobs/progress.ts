import { sql } from "drizzle-orm";
import { jobs } from "../db/schema/jobs.ts";
import { held, holds } from "./lease.ts";
import type { JobProgress, JobRecord, Lease } from "./records.ts";
import { type JobsDb, transition } from "./transition.ts";

/** Replaces the job's progress. A step further than ever before shows that its crashes were not its own doing. */
export async function writeProgress(deps: JobsDb, lease: Lease, progress: JobProgress): Promise<JobRecord> {
  const step = sql`${progress.step}::bigint`;
  const rows = await transition(deps, {
    where: holds(lease),
    set: {
      progress,
      reachedStep: sql`greatest(${jobs.reachedStep}, ${step})`,
      crashes: sql`case when ${step} > ${jobs.reachedStep} then 0 else ${jobs.crashes} end`,
    },
  });
  return held(rows, lease);
}
