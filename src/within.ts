import { deferred } from "./deferred.ts";
import { fail } from "./errors.ts";

/**
 * Waits for `work`, but no longer than `ms` milliseconds (then: undefined) and not beyond `signal` (then: `cancelled`).
 * The work itself goes on; what becomes of it later is nobody's unhandled rejection.
 */
export async function within<T>(work: Promise<T>, ms: number, signal?: AbortSignal): Promise<T | undefined> {
  const over = deferred<undefined>();
  const timer = setTimeout(over.resolve, ms, undefined);
  const abort = (): void => over.reject(fail("cancelled", "the request was cancelled"));
  if (signal?.aborted) abort();
  else signal?.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([work, over.promise]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}
