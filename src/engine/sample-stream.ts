import { setMaxListeners } from "node:events";
import type { SampleEvent, SampleRequest } from "./engine.ts";
import { asEngineError } from "./engine-error.ts";

/** Made once: an error with its stack is dear where one ends every request. */
const LEFT = new Error("nobody reads this stream any more");

/**
 * Batches of events as an engine produces them → the events the caller sees. `shouldStop` runs as batches arrive, whatever the
 * reader's pace; tokens drawn beyond a stop are discarded, so the result does not depend on timing.
 */
export async function* createSampleStream(
  request: SampleRequest,
  source: { start: (signal: AbortSignal) => AsyncIterable<SampleEvent[]>; drop: (index: number) => void },
): AsyncGenerator<SampleEvent> {
  const { n, signal, shouldStop } = request;
  const left = new AbortController();
  const sampled = Array.from({ length: n }, (): number[] => []);
  const open = new Set(sampled.keys());
  const queue: SampleEvent[] = [];
  let failure: unknown;
  let finished = false;
  let wake = (): void => undefined;

  function end(index: number, reason: "stop" | "length" | "cancelled"): void {
    if (open.delete(index)) queue.push({ type: "finish", index, reason });
  }

  function take(event: SampleEvent): void {
    if (!("index" in event)) {
      queue.push(event);
      return;
    }
    const { index } = event;
    if (!open.has(index)) return;
    if (event.type === "finish") {
      end(index, event.reason);
      return;
    }
    queue.push(event);
    const ids = sampled[index]!;
    ids.push(event.id);
    if (!shouldStop?.(index, ids)) return;
    end(index, "stop");
    source.drop(index);
  }

  async function pump(): Promise<void> {
    try {
      for await (const batch of source.start(left.signal)) {
        for (const event of batch) take(event);
        wake();
      }
    } catch (error) {
      failure = asEngineError(error);
    }
    finished = true;
    wake();
  }

  function cancel(): void {
    for (const index of [...open]) end(index, "cancelled");
    left.abort();
    wake();
  }

  if (signal?.aborted) cancel();
  else {
    if (signal) {
      // A request may sample many prompts at once, and one signal ends them all.
      setMaxListeners(0, signal);
      signal.addEventListener("abort", cancel, { once: true });
    }
    void pump();
  }
  try {
    while (true) {
      const event = queue.shift();
      if (event) yield event;
      else if (open.size === 0) return;
      else if (failure) throw failure;
      else if (finished) throw asEngineError(new Error("the engine ended a request before its sequences"));
      else
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
    }
  } finally {
    signal?.removeEventListener("abort", cancel);
    left.abort(LEFT);
  }
}
