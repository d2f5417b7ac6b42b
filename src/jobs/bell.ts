/**
 * Wake-ups within this process: those who wait for something in the database look at once when it was written here.
 * What other processes write is found by looking every so often; the bell only makes it quicker.
 */
export interface Bell {
  ring(topic: Topic): void;
  /** Returns what ends the listening. */
  listen(topic: Topic, heard: () => void): () => void;
}

/** Something to claim; new events of a job; a request to the one who runs it. */
export type Topic = "queued" | `events:${string}` | `wanted:${string}`;

export function createBell(): Bell {
  const listeners = new Map<Topic, Set<() => void>>();
  return {
    ring(topic) {
      for (const heard of [...(listeners.get(topic) ?? [])]) heard();
    },
    listen(topic, heard) {
      const here = listeners.get(topic) ?? new Set();
      listeners.set(topic, here.add(heard));
      return () => {
        here.delete(heard);
        if (here.size === 0 && listeners.get(topic) === here) listeners.delete(topic);
      };
    },
  };
}

export interface Waker {
  /** Returns when the bell has rung since the last wait, `ms` have passed or the signal aborts, whichever is first. */
  wait(ms: number, signal?: AbortSignal): Promise<void>;
  stop(): void;
}

/** Listens from now on, so that no ring between looking and waiting is missed. */
export function createWaker(bell: Bell, topic: Topic): Waker {
  let rung = false;
  let wake = (): void => undefined;
  const stop = bell.listen(topic, () => {
    rung = true;
    wake();
  });
  return {
    stop,
    async wait(ms, signal) {
      if (!rung && !signal?.aborted) {
        await new Promise<void>((resolve) => {
          const done = (): void => {
            clearTimeout(timer);
            signal?.removeEventListener("abort", done);
            wake = () => undefined;
            resolve();
          };
          const timer = setTimeout(done, ms);
          signal?.addEventListener("abort", done, { once: true });
          wake = done;
        });
      }
      rung = false;
    },
  };
}
