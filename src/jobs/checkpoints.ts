import { and, asc, desc, eq, isNull, type SQL, sql } from "drizzle-orm";
import { guarded, uniqueViolation } from "../db/errors.ts";
import { readPage } from "../db/page.ts";
import type { Page, PageQuery } from "../db/records.ts";
import { checkpoints } from "../db/schema/jobs.ts";
import { held, holds } from "./lease.ts";
import type { CheckpointRecord, JobRecord, Lease, NewCheckpoint } from "./records.ts";
import { type JobsDb, transition } from "./transition.ts";

/**
 * Writes down what a job has saved, with its `job.checkpoint` event. The files are there already. Throws LeaseLost.
 * A second call with the same id (the answer to the first was lost on its way) changes nothing.
 */
export async function addCheckpoint(deps: JobsDb, lease: Lease, checkpoint: NewCheckpoint): Promise<JobRecord> {
  try {
    return await save(deps, lease, checkpoint);
  } catch (error) {
    if (uniqueViolation(error)?.constraint !== "checkpoints_pkey") throw error;
    return held(await transition(deps, { where: holds(lease), set: {} }), lease);
  }
}

async function save(deps: JobsDb, lease: Lease, checkpoint: NewCheckpoint): Promise<JobRecord> {
  const { id, step, kind, weightsHash, isBest = false } = checkpoint;
  const text = (value: string): SQL => sql`${sql.param(value, checkpoints.id)}::text`;
  const rows = await transition(deps, {
    where: holds(lease),
    set: {},
    events: [{ type: "job.checkpoint", data: { id, step, kind, weights_hash: weightsHash, is_best: isBest } }],
    also: {
      ...(isBest ? { unmarked: UNMARK_BEST } : {}),
      saved: sql`
        insert into ${checkpoints} (id, job_id, step, kind, artifact, weights_hash, config, is_best, created_at)
        select ${text(id)}, changed.id, ${step}::bigint, ${text(kind)}, ${text(checkpoint.artifact)}, ${text(weightsHash)},
          ${sql.param(checkpoint.config, checkpoints.config)}::json, ${isBest}::boolean, now()
        from changed`,
    },
  });
  return held(rows, lease);
}

const UNMARK_BEST = sql`
  update ${checkpoints} set is_best = false from changed
  where ${checkpoints.jobId} = changed.id and ${checkpoints.isBest}`;

/** One that belongs to no job: what a training session saves. */
export async function addLooseCheckpoint({ db }: JobsDb, checkpoint: NewCheckpoint): Promise<CheckpointRecord> {
  const [row] = await guarded(db.insert(checkpoints).values(checkpoint).returning());
  return row!;
}

/** Deleted ones too: what was made from them goes on naming them. */
export async function findCheckpoint({ db }: JobsDb, id: string): Promise<CheckpointRecord | undefined> {
  const [row] = await guarded(db.select().from(checkpoints).where(eq(checkpoints.id, id)));
  return row;
}

/** Where a job that is taken up again goes on. */
export async function lastCheckpoint({ db }: JobsDb, jobId: string): Promise<CheckpointRecord | undefined> {
  const [row] = await guarded(
    db
      .select()
      .from(checkpoints)
      .where(and(eq(checkpoints.jobId, jobId), isNull(checkpoints.deletedAt)))
      .orderBy(desc(checkpoints.step), desc(checkpoints.createdAt), asc(checkpoints.id))
      .limit(1),
  );
  return row;
}

/** The one that evaluations found best; undefined where there was none. */
export async function bestCheckpoint({ db }: JobsDb, jobId: string): Promise<CheckpointRecord | undefined> {
  const isBest = and(eq(checkpoints.jobId, jobId), checkpoints.isBest, isNull(checkpoints.deletedAt));
  const [row] = await guarded(db.select().from(checkpoints).where(isBest));
  return row;
}

/** Those that are not deleted. */
export async function listCheckpoints(
  deps: JobsDb,
  { jobId, ...page }: PageQuery & { jobId?: string | undefined },
): Promise<Page<CheckpointRecord>> {
  return readPage(
    checkpoints,
    page,
    ({ beyond, orderBy, limit }) =>
      deps.db
        .select()
        .from(checkpoints)
        .where(
          and(jobId === undefined ? undefined : eq(checkpoints.jobId, jobId), isNull(checkpoints.deletedAt), beyond),
        )
        .orderBy(...orderBy)
        .limit(limit),
    async (id) => (await findCheckpoint(deps, id)) !== undefined,
  );
}

/** Hides it; false if there is none. Its files are the caller's to remove. */
export async function removeCheckpoint({ db }: JobsDb, id: string): Promise<boolean> {
  const gone = await guarded(
    db
      .update(checkpoints)
      .set({ deletedAt: sql`now()` })
      .where(and(eq(checkpoints.id, id), isNull(checkpoints.deletedAt)))
      .returning({ id: checkpoints.id }),
  );
  return gone.length > 0;
}
