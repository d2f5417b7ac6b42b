import { held, holds } from "./lease.ts";
import type { JobProgress, JobRecord, Lease } from "./records.ts";
import { type JobsDb, transition } from "./transition.ts";

/** Replaces the job's progress. The step is also the place where a worker that is lost now was lost. */
export async function writeProgress(deps: JobsDb, lease: Lease, progress: JobProgress): Promise<JobRecord> {
  const rows = await transition(deps, { where: holds(lease), set: { progress, attemptStep: progress.step } });
  return held(rows, lease);
}
