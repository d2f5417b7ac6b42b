/**
 * Keeps a claimed job: heartbeats while it is worked on, and says when it must be let go. A worker that is cut off from
 * the database must have stopped before the lease runs out there and another may claim the job, so it measures for
 * itself how long it has not got through, from the moment it asked (the database's lease began later).
 */
import { LeaseLost, STOP_SHARE } from "./lease.ts";
import type { HeldJobs } from "./queue.ts";
import type { JobRecord, Lease, Wanted } from "./records.ts";

export interface Hold {
  readonly lease: Lease;
  /** Aborts with LeaseLost. */
  readonly signal: AbortSignal;
  /** What the holder is asked to do, as far as is known here. */
  wanted(): Wanted | null;
  /** Every answer about the job tells what is wanted, too. */
  seen(job: JobRecord): void;
  lose(error: LeaseLost): void;
  /** No more heartbeats. */
  stop(): void;
}

export interface HoldDeps {
  queue: Pick<HeldJobs, "heartbeat" | "bell">;
  /** Milliseconds of a clock that never jumps. */
  now: () => number;
  leaseMs: number;
  heartbeatMs: number;
  log: { warn(details: object, message: string): void };
}

/** `claimedAt`: when the claim was sent, by `now`. */
export function holdJob(deps: HoldDeps, job: JobRecord, claimedAt: number): Hold {
  const { queue, now, leaseMs, heartbeatMs, log } = deps;
  const lease: Lease = { jobId: job.id, token: job.leaseToken };
  const lost = new AbortController();
  let wanted = job.wanted;
  let beat: NodeJS.Timeout | undefined;
  let deadline: NodeJS.Timeout | undefined;
  let beating = false;
  let again = false;
  let over = false;

  const lose = (error: LeaseLost): void => {
    if (over) return;
    stop();
    lost.abort(error);
  };
  const reached = (sentAt: number): void => {
    clearTimeout(deadline);
    const silentMs = Math.round(leaseMs * STOP_SHARE);
    const cutOff = (): void => lose(new LeaseLost(lease, `the database has not been reached for ${silentMs} ms`));
    deadline = setTimeout(cutOff, Math.max(0, sentAt + silentMs - now()));
  };

  async function show(): Promise<void> {
    // One at a time; a request that comes in meanwhile is asked about right after.
    again = beating;
    if (beating || over) return;
    beating = true;
    clearTimeout(beat);
    const sentAt = now();
    try {
      const current = await queue.heartbeat(lease, leaseMs);
      if (over) return;
      wanted = current.wanted;
      reached(sentAt);
    } catch (error) {
      if (error instanceof LeaseLost) lose(error);
      else if (!over) log.warn({ job: job.id, err: error }, "a heartbeat did not get through; trying again");
    } finally {
      beating = false;
      if (!over) beat = setTimeout(() => void show(), again ? 0 : heartbeatMs);
    }
  }

  const stopListening = queue.bell.listen(`wanted:${job.id}`, () => void show());
  function stop(): void {
    over = true;
    clearTimeout(beat);
    clearTimeout(deadline);
    stopListening();
  }

  reached(claimedAt);
  beat = setTimeout(() => void show(), heartbeatMs);
  return {
    lease,
    signal: lost.signal,
    wanted: () => wanted,
    seen(current) {
      wanted = current.wanted;
    },
    lose,
    stop,
  };
}
