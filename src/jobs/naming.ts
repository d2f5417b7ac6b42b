import { and, inArray, sql } from "drizzle-orm";
import { guarded } from "../db/errors.ts";
import { jobs } from "../db/schema/jobs.ts";
import type { JobsDb } from "./transition.ts";

/**
 * A job that is not finished and names `id` anywhere in its configuration, or undefined. A search in the text serves every
 * kind of job: ids are random, so nothing else contains one.
 */
export async function unfinishedNaming({ db }: Pick<JobsDb, "db">, id: string): Promise<string | undefined> {
  const [job] = await guarded(
    db
      .select({ id: jobs.id })
      .from(jobs)
      .where(
        and(
          inArray(jobs.status, ["queued", "running", "paused"]),
          sql`position(${id}::text in ${jobs.config}::text) > 0`,
        ),
      )
      .limit(1),
  );
  return job?.id;
}
