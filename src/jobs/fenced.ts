import { setTimeout as delay } from "node:timers/promises";
import { PreceptorError } from "../errors.ts";
import type { Hold } from "./hold.ts";
import { LeaseLost } from "./lease.ts";
import type { JobRecord } from "./records.ts";

/** A database that restarts is back within seconds; asking twice a second neither hammers it nor keeps the job waiting. */
const RETRY_MS = 500;

/**
 * A write by the one who holds a job. While the database is away it is tried again for as long as the lease is ours:
 * an hour's work is not thrown away for a restart. Then, or where the job went to another, it throws LeaseLost. Where
 * an answer was lost on its way an event may stand there twice.
 */
export async function fenced(hold: Hold, write: () => Promise<JobRecord>): Promise<JobRecord> {
  for (;;) {
    hold.signal.throwIfAborted();
    try {
      const job = await untilAborted(write(), hold.signal);
      hold.seen(job);
      return job;
    } catch (error) {
      if (error instanceof LeaseLost) hold.lose(error);
      if (!isAway(error)) throw error;
    }
    await delay(RETRY_MS, undefined, { signal: hold.signal }).catch(() => undefined);
  }
}

export function isAway(error: unknown): boolean {
  return error instanceof PreceptorError && error.code === "database_unavailable";
}

/** A frozen database answers after its time limit at the earliest; whoever has lost the lease must not wait for that. */
function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason as Error);
    signal.addEventListener("abort", abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
