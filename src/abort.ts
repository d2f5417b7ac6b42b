import { setMaxListeners } from "node:events";

/** A signal that ends with others, until it is unlinked from them. */
export interface Linked {
  signal: AbortSignal;
  unlink(): void;
}

/**
 * Aborted with the reason of the first of `signals` that is. `AbortSignal.any` would leave a reference per call on a signal that
 * outlives the request, for ever; `unlink` leaves nothing.
 */
export function linked(...signals: readonly (AbortSignal | undefined)[]): Linked {
  const given = signals.filter((signal) => signal !== undefined);
  const controller = new AbortController();
  const abort = (): void => controller.abort(given.find(({ aborted }) => aborted)?.reason);
  // Each of these may end many pieces of work at once.
  setMaxListeners(0, controller.signal, ...given);
  if (given.some(({ aborted }) => aborted)) abort();
  else for (const signal of given) signal.addEventListener("abort", abort, { once: true });
  return {
    signal: controller.signal,
    unlink() {
      for (const signal of given) signal.removeEventListener("abort", abort);
    },
  };
}

/** Waits for `work`, but not beyond `signal`, whose reason it throws. The work itself goes on. */
export async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work;
  let abort = (): void => undefined;
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
