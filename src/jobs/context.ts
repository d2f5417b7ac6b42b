import { fenced } from "./fenced.ts";
import type { Hold } from "./hold.ts";
import type { HeldJobs } from "./queue.ts";
import type { JobProgress, JobRecord, NewCheckpoint, Wanted } from "./records.ts";

/**
 * What a handler gets. Its writes go through only while the job is ours: otherwise they throw LeaseLost, which the
 * handler lets pass. They wait while the database is away.
 */
export interface JobContext {
  /** As it was when claimed; a job that has run before has `attempts` > 1. */
  job: JobRecord;
  /**
   * Stop now: the lease is lost, or the server ends. What comes after the last checkpoint will be done again, here or
   * elsewhere; throw whatever comes of it. Pausing and cancelling do not abort it: see `wanted`.
   */
  signal: AbortSignal;
  /** To be looked at between steps; then save a checkpoint and return `paused` or `cancelled`. */
  wanted(): Wanted | null;
  event(type: string, data: unknown): Promise<void>;
  /** Overwrites what the same step wrote before a resume; comes with a `job.metrics` event. */
  metrics(step: number, values: Readonly<Record<string, number>>): Promise<void>;
  progress(progress: JobProgress): Promise<void>;
  /** Its files are in the artefact store already; comes with a `job.checkpoint` event. */
  checkpoint(checkpoint: NewCheckpoint): Promise<void>;
}

export function createContext(queue: HeldJobs, job: JobRecord, hold: Hold, signal: AbortSignal): JobContext {
  const { lease } = hold;
  const write = async (how: () => Promise<JobRecord>): Promise<void> => void (await fenced(hold, how));
  return {
    job,
    signal,
    wanted: hold.wanted,
    event: (type, data) => write(() => queue.append(lease, [{ type, data }])),
    metrics: (step, values) => write(() => queue.writeMetrics(lease, step, values)),
    progress: (progress) => write(() => queue.writeProgress(lease, progress)),
    checkpoint: (checkpoint) => write(() => queue.addCheckpoint(lease, checkpoint)),
  };
}
