import { and, inArray, sql } from "drizzle-orm";
import { jobs } from "../db/schema/jobs.ts";
import { leaseEnd } from "./lease.ts";
import type { JobRecord } from "./records.ts";
import { type JobsDb, transition } from "./transition.ts";

export interface Claim {
  /** Who claims: shown to people, decides nothing. */
  owner: string;
  /** Only jobs of these kinds. */
  kinds: readonly string[];
  leaseMs: number;
}

/**
 * Takes the oldest queued job, under a new token. SKIP LOCKED: of workers that look at the same time each takes another
 * job, and none waits for one that is just being taken.
 */
export async function claim(deps: JobsDb, { owner, kinds, leaseMs }: Claim): Promise<JobRecord | undefined> {
  if (kinds.length === 0) return undefined;
  const oldest = deps.db
    .select({ id: jobs.id })
    .from(jobs)
    // A literal, not a parameter: only so does the planner see that the partial index applies.
    .where(and(sql`status = 'queued'`, inArray(jobs.kind, [...kinds])))
    .orderBy(jobs.createdAt, jobs.id)
    .limit(1)
    .for("update", { skipLocked: true });
  const [job] = await transition(deps, {
    where: sql`${jobs.id} = (${oldest})`,
    set: {
      status: "running",
      leaseToken: sql`${jobs.leaseToken} + 1`,
      leaseOwner: owner,
      leaseUntil: leaseEnd(leaseMs),
      attempts: sql`${jobs.attempts} + 1`,
      attemptStep: null,
      startedAt: sql`coalesce(${jobs.startedAt}, now())`,
    },
    announce: true,
  });
  return job;
}
