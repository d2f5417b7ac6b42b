import { setTimeout as sleep } from "node:timers/promises";
import { PreceptorError } from "../../errors.ts";

/** Fail-overs of PostgreSQL take up to a minute. The work took longer than the wait for it costs. */
const PATIENCE_MS = 60_000;
const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 5_000;

/**
 * Writes the end of work down, again and again while the database is away: what was generated cannot be had again for
 * the asking. Throws `database_unavailable` when it stays away, or at once when `ending` is aborted.
 */
export async function insist<T>(write: () => Promise<T>, ending: AbortSignal): Promise<T> {
  const deadline = performance.now() + PATIENCE_MS;
  for (let wait = FIRST_WAIT_MS; ; wait = Math.min(wait * 2, LONGEST_WAIT_MS)) {
    try {
      return await write();
    } catch (error) {
      const away = error instanceof PreceptorError && error.code === "database_unavailable";
      if (!away || ending.aborted || performance.now() + wait > deadline) throw error;
      await sleep(wait, undefined, { signal: ending }).catch(() => undefined);
    }
  }
}
