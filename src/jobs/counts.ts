import { count } from "drizzle-orm";
import { guarded } from "../db/errors.ts";
import { jobs } from "../db/schema/jobs.ts";
import type { JobStatus } from "./records.ts";
import type { JobsDb } from "./transition.ts";

export interface JobCount {
  kind: string;
  status: JobStatus;
  count: number;
}

/** Jobs by kind and status, for metrics. */
export async function counts({ db }: JobsDb): Promise<JobCount[]> {
  const { kind, status } = jobs;
  const rows = await guarded(db.select({ kind, status, count: count() }).from(jobs).groupBy(kind, status));
  return rows as JobCount[];
}
