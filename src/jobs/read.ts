import { and, eq, inArray, sql } from "drizzle-orm";
import { guarded } from "../db/errors.ts";
import { readPage } from "../db/page.ts";
import type { Page } from "../db/records.ts";
import { jobs } from "../db/schema/jobs.ts";
import { fail } from "../errors.ts";
import type { JobQuery, JobRecord } from "./records.ts";
import { type JobsDb, toJob } from "./transition.ts";

export async function find({ db }: JobsDb, id: string): Promise<JobRecord | undefined> {
  const [row] = await guarded(db.select().from(jobs).where(eq(jobs.id, id)));
  return row && toJob(row);
}

/** As `find`; throws `not_found`. */
export async function get(deps: JobsDb, id: string): Promise<JobRecord> {
  const job = await find(deps, id);
  if (!job) throw fail("not_found", "there is no such job; list them to see which exist");
  return job;
}

export async function list(deps: JobsDb, { kinds, status, metadata, ...page }: JobQuery): Promise<Page<JobRecord>> {
  const { db } = deps;
  const filters = [
    kinds && inArray(jobs.kind, [...kinds]),
    status === undefined ? undefined : eq(jobs.status, status),
    metadata && sql`${jobs.metadata} @> ${sql.param(metadata, jobs.metadata)}::jsonb`,
  ];
  const { rows, hasMore } = await readPage(
    jobs,
    page,
    ({ beyond, orderBy, limit }) =>
      db
        .select()
        .from(jobs)
        .where(and(...filters, beyond))
        .orderBy(...orderBy)
        .limit(limit),
    async (id) => (await find(deps, id)) !== undefined,
  );
  return { rows: rows.map(toJob), hasMore };
}
