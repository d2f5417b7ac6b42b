/**
 * The server's last minutes, shared by everything that must know of them: first `drain()` (new work is refused with
 * 503 while what is under way goes on), then `endStreams()` (open streams are told to end).
 */
export interface Lifecycle {
  readonly draining: boolean;
  readonly streamsEnding: AbortSignal;
  drain(): void;
  endStreams(): void;
}

export function createLifecycle(): Lifecycle {
  const ending = new AbortController();
  let draining = false;
  return {
    get draining() {
      return draining;
    },
    streamsEnding: ending.signal,
    drain() {
      draining = true;
    },
    endStreams() {
      draining = true;
      ending.abort();
    },
  };
}
