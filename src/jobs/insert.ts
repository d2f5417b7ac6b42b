import { jobs } from "../db/schema/jobs.ts";
import type { JobRecord, NewJob } from "./records.ts";
import { type JobsDb, writeEvents, writeJobs } from "./transition.ts";

/** A new job, queued, with its first event. */
export async function insert(deps: JobsDb, job: NewJob): Promise<JobRecord> {
  const { metadata = {}, ...fields } = job;
  const statement = deps.db
    .insert(jobs)
    .values({ ...fields, metadata, status: "queued", lastSeq: 1 })
    .returning();
  const [made] = await writeJobs(deps, statement, { events: writeEvents([], true) });
  return made!;
}
