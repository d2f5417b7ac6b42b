/**
 * The byte side of server-sent events: one writer with back-pressure, pings and an end. Hono's own stream helper sends
 * raw error messages to the client and lets a callback write on after the client left; this one does neither.
 */
import { deferred } from "../deferred.ts";
import type { StreamOutcome } from "./context.ts";

/** Bytes that may wait for a slow reader before `write` waits with them. */
const BUFFER_BYTES = 64 * 1024;
/** Proxies and browsers drop connections that are silent for 30–60 s. */
export const PING_MS = 15_000;
/** A reader that takes nothing for this long holds a slot for nobody: it is treated as gone. */
const STALL_MS = 120_000;

export interface EventWriter {
  readonly body: ReadableStream<Uint8Array>;
  /** Aborted when the reader is gone. */
  readonly gone: AbortSignal;
  /** Something was written, so a failure can no longer be an ordinary response. */
  readonly wrote: boolean;
  /** Settles with the first write or comment, or when the reader leaves before it. */
  readonly started: Promise<void>;
  /** Resolves when the reader has room for more; at once when it is gone. */
  write(text: string): Promise<void>;
  /** A comment line, which clients skip. It never waits: where the reader has no room it is left out. */
  comment(text: string): void;
  close(): void;
  readonly ended: Promise<StreamOutcome>;
  end(outcome: StreamOutcome): void;
}

/** `client` is the request's own signal: it aborts when the connection is cut, even while nothing is being written. */
export function createEventWriter(client: AbortSignal, pingMs: number = PING_MS): EventWriter {
  const encoder = new TextEncoder();
  const gone = new AbortController();
  const started = deferred<void>();
  const ended = deferred<StreamOutcome>();
  let controller: ReadableStreamDefaultController<Uint8Array>;
  let room: (() => void) | undefined;
  let closed = false;
  let wrote = false;

  const leave = (): void => {
    gone.abort();
    room?.();
    started.resolve();
    finish();
  };
  const body = new ReadableStream<Uint8Array>(
    {
      start(c) {
        controller = c;
      },
      pull() {
        room?.();
      },
      cancel: leave,
    },
    new ByteLengthQueuingStrategy({ highWaterMark: BUFFER_BYTES }),
  );
  const ping = setInterval(() => remark("ping"), pingMs);
  if (client.aborted) queueMicrotask(leave);
  else client.addEventListener("abort", leave, { once: true });

  function finish(): void {
    if (closed) return;
    closed = true;
    clearInterval(ping);
    client.removeEventListener("abort", leave);
    try {
      controller.close();
    } catch {
      // The reader cancelled first; there is nothing left to close.
    }
  }

  function remark(text: string): void {
    if (!closed && (controller.desiredSize ?? 0) > 0) controller.enqueue(encoder.encode(`: ${text}\n\n`));
  }

  function comment(text: string): void {
    if (closed) return;
    wrote = true;
    remark(text);
    started.resolve();
  }

  async function write(text: string): Promise<void> {
    if (closed) return;
    wrote = true;
    controller.enqueue(encoder.encode(text));
    started.resolve();
    while (!closed && (controller.desiredSize ?? 1) <= 0) {
      let stalled: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        room = resolve;
        stalled = setTimeout(leave, STALL_MS);
      });
      clearTimeout(stalled);
    }
  }

  return {
    body,
    gone: gone.signal,
    get wrote() {
      return wrote;
    },
    started: started.promise,
    write,
    comment,
    close: finish,
    ended: ended.promise,
    end: ended.resolve,
  };
}
