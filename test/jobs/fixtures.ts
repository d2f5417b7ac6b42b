import { setTimeout as delay } from "node:timers/promises";
import type { Database } from "../../src/db/database.ts";
import { checkpoints, jobEvents, jobMetrics, jobs } from "../../src/db/schema/jobs.ts";
import type { JobQueue } from "../../src/jobs/queue.ts";
import type { JobEvent, JobRecord, Lease, NewCheckpoint, NewJob } from "../../src/jobs/records.ts";

export const newJob = (id: string, more: Partial<NewJob> = {}): NewJob => ({
  id,
  kind: "test",
  config: { learning_rate: 1e-5 },
  configHash: "hash",
  seed: 4_294_967_295,
  ...more,
});

export const newCheckpoint = (id: string, step: number, more: Partial<NewCheckpoint> = {}): NewCheckpoint => ({
  id,
  step,
  kind: "adapter",
  artifact: `sha256/${id}`,
  weightsHash: `w-${id}`,
  config: { parent: null },
  ...more,
});

/** Long enough for a statement on a busy machine, short enough for a test. */
export const SHORT_LEASE_MS = 1_500;

export const leaseOf = (job: JobRecord): Lease => ({ jobId: job.id, token: job.leaseToken });

/** Claims what must be there to be claimed. */
export async function take(queue: JobQueue, owner = "w", leaseMs = 60_000): Promise<{ job: JobRecord; lease: Lease }> {
  const job = await queue.claim({ owner, kinds: ["test"], leaseMs });
  if (!job) throw new Error("nothing to claim");
  return { job, lease: leaseOf(job) };
}

export const allEvents = (queue: JobQueue, id: string): Promise<JobEvent[]> =>
  queue.events(id, { after: 0, limit: 10_000 });

/** Type and status, which is what most tests are about. */
export const outline = (events: readonly JobEvent[]): string[] =>
  events.map(({ type, data }) => {
    const { status, code } = data as { status?: string; code?: string };
    return [type, status ?? code].filter(Boolean).join(" ");
  });

export async function empty({ db }: Database): Promise<void> {
  for (const table of [jobs, jobEvents, jobMetrics, checkpoints]) await db.delete(table);
}

export async function until(holds: () => boolean | Promise<boolean>, ms = 15_000): Promise<void> {
  const end = performance.now() + ms;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`not within ${ms} ms: ${holds}`);
    await delay(10);
  }
}
