import { and, inArray, sql } from "drizzle-orm";
import { guarded } from "../db/errors.ts";
import { jobs } from "../db/schema/jobs.ts";
import type { JobsDb } from "./transition.ts";

/** Shown in an error; more than the first are not looked for. */
const SHOWN = 3;

/**
 * Ids of jobs that are not finished and in whose configuration, or in what they have made so far, this text stands: a checkpoint's
 * id, `"model@`, a dataset that a later stage of the job learns from.
 */
export async function needing({ db }: JobsDb, text: string): Promise<string[]> {
  const rows = await guarded(
    db
      .select({ id: jobs.id })
      .from(jobs)
      .where(
        and(
          inArray(jobs.status, ["queued", "running", "paused"]),
          sql`strpos(${jobs.config}::text || coalesce(${jobs.progress}::text, ''), ${text}::text) > 0`,
        ),
      )
      .limit(SHOWN),
  );
  return rows.map(({ id }) => id);
}
