import { endedBy, RemoteFailure } from "./failure.ts";

/** Ends a request that takes too long, or that its caller has given up. */
export interface Patience {
  readonly signal: AbortSignal;
  /** Something arrived: the next thing may take this long, within the time left. */
  renew(silenceMs: number): void;
  /** The time left, from now on. */
  limit(totalMs: number): void;
  /** Why it was ended, if it was. */
  failure(): Error | undefined;
  end(): void;
}

/** Made once: an error with its stack is dear where one ends every request. */
const ENDED = new Error("the request was ended");

/** `totalMs`: however often it is renewed. */
export function createPatience(caller: AbortSignal | undefined, silenceMs: number, totalMs: number): Patience {
  const controller = new AbortController();
  let silence = silenceMs;
  let total = totalMs;
  let deadline = performance.now() + totalMs;
  let heard = false;
  let expired: string | undefined;
  let timer: NodeJS.Timeout | undefined;
  const start = (): void => {
    clearTimeout(timer);
    const left = Math.max(0, deadline - performance.now());
    const inAll = left < silence && (heard || total < silence);
    timer = setTimeout(
      () => {
        expired = inAll ? `took longer than ${seconds(total)}` : `sent nothing for ${seconds(silence)}`;
        controller.abort(ENDED);
      },
      Math.min(silence, left),
    );
  };
  const leave = (): void => controller.abort(ENDED);
  if (caller?.aborted) leave();
  caller?.addEventListener("abort", leave, { once: true });
  start();
  return {
    signal: controller.signal,
    renew(ms) {
      heard = true;
      silence = ms;
      start();
    },
    limit(ms) {
      total = ms;
      deadline = performance.now() + ms;
      start();
    },
    failure() {
      if (caller?.aborted) return endedBy(caller);
      return expired === undefined ? undefined : new RemoteFailure("unreachable", expired);
    },
    end() {
      clearTimeout(timer);
      caller?.removeEventListener("abort", leave);
    },
  };
}

const seconds = (ms: number): string => `${Math.round(ms / 1000)} s`;
