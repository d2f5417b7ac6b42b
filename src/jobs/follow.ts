import { createWaker } from "./bell.ts";
import { FINAL_EVENTS, listEvents } from "./events.ts";
import { get } from "./read.ts";
import type { JobEvent } from "./records.ts";
import type { JobsDb } from "./transition.ts";

/** How late events of a job that runs in another process arrive; what a watcher costs is one small query as often. */
export const FOLLOW_POLL_MS = 1_000;
/** Events fetched at a time: a long job's are thousands, and a slow reader should not have them all in memory. */
const BATCH = 200;

export interface Following {
  /** Number of the last event that the follower has seen. */
  after: number;
  /** Ends the iteration, without an error. */
  signal: AbortSignal;
  pollMs?: number | undefined;
}

/**
 * The job's events after a number, first those that are there, then live; over with the job's terminal event. Throws
 * `not_found`, and `database_unavailable` where the reader should come back with the last number it has seen.
 */
export async function* follow(
  deps: JobsDb,
  jobId: string,
  { after, signal, pollMs = FOLLOW_POLL_MS }: Following,
): AsyncGenerator<JobEvent, void, void> {
  const waker = createWaker(deps.bell, `events:${jobId}`);
  try {
    const job = await get(deps, jobId);
    // Whoever has seen the end already must not wait for another.
    if (job.finishedAt && job.lastSeq <= after) return;
    let seen = after;
    while (!signal.aborted) {
      const events = await listEvents(deps, jobId, { after: seen, limit: BATCH });
      for (const event of events) {
        if (signal.aborted) return;
        yield event;
        seen = event.seq;
        if (FINAL_EVENTS.has(event.type)) return;
      }
      if (events.length < BATCH) await waker.wait(pollMs, signal);
    }
  } finally {
    waker.stop();
  }
}
