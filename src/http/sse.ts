/**
 * Server-sent events, in the two dialects of the API.
 *
 * `sse`: `event:` + `id:` + `data:{"type",…,"sequence_number"}`; a failure is `event: error` with our error body, then
 * the stream closes. `openaiStream`: bare `data:` lines that end with `data: [DONE]`; a failure is a `data:` line with
 * our error body and no [DONE] (openai clients raise it).
 *
 * An error before the first event is thrown, so it becomes an ordinary response with its own status: work that fails
 * early (an unknown model, a prompt too long) needs no special care.
 */

import type { ServerResponse } from "node:http";
import { linked } from "../abort.ts";
import { fail, PreceptorError } from "../errors.ts";
import type { ApiContext, StreamOutcome } from "./context.ts";
import { streamError } from "./errors.ts";
import { createEventWriter, type EventWriter } from "./event-stream.ts";

export interface EventStream {
  /** Aborted when the client leaves or the server ends its streams: hand it to every engine call. */
  readonly signal: AbortSignal;
  /**
   * Sends one event and resolves when the client has room for the next. Throws `cancelled` once the client is gone,
   * so a `for await … send` loop ends by itself and its generators clean up.
   */
  send(type: string, data: object): Promise<void>;
}

export interface DataStream {
  readonly signal: AbortSignal;
  /** Sends `data: <json>`; otherwise as EventStream.send. */
  send(data: object): Promise<void>;
  /** Sends a line that clients skip and people see; left out where the reader is behind. */
  comment(text: string): void;
}

export interface StreamOptions {
  /** Milliseconds between comment pings (default 15 s). */
  pingMs?: number;
  /** First sequence number (default 0): a replayed stream goes on where it stopped. */
  firstSequenceNumber?: number;
  /** Its ids are those of kept events: an error gets none, or a client that comes back would miss the event of that number. */
  replayed?: boolean;
}

/**
 * How long the response's head waits for the first event, so that an early failure keeps its HTTP status. Well below
 * the 30 s after which proxies give up on a silent upstream; then the stream opens anyway and pings.
 */
const FIRST_EVENT_WAIT_MS = 5_000;

export function sse(
  c: ApiContext,
  run: (stream: EventStream) => Promise<void>,
  options: StreamOptions = {},
): Promise<Response> {
  let sequence = options.firstSequenceNumber ?? 0;
  const frame = (type: string, data: object): string => {
    const id = sequence++;
    return `event: ${type}\nid: ${id}\ndata: ${JSON.stringify({ type, sequence_number: id, ...data })}\n\n`;
  };
  return respond(c, options, {
    run: (signal, { write }) => run({ signal, send: (type, data) => write(frame(type, data)) }),
    failure: (body) =>
      options.replayed ? `event: error\ndata: ${JSON.stringify({ type: "error", ...body })}\n\n` : frame("error", body),
    done: "",
  });
}

export function openaiStream(
  c: ApiContext,
  run: (stream: DataStream) => Promise<void>,
  options: StreamOptions = {},
): Promise<Response> {
  const frame = (data: object): string => `data: ${JSON.stringify(data)}\n\n`;
  return respond(c, options, {
    run: (signal, { write, comment }) => run({ signal, send: (data) => write(frame(data)), comment }),
    failure: frame,
    done: "data: [DONE]\n\n",
  });
}

interface Dialect {
  run(signal: AbortSignal, out: Pick<EventWriter, "write" | "comment">): Promise<void>;
  failure(body: object): string;
  done: string;
}

async function respond(c: ApiContext, options: StreamOptions, dialect: Dialect): Promise<Response> {
  const writer = createEventWriter(c.req.raw.signal, options.pingMs);
  const ending = c.var.streamsEnding;
  const { signal, unlink } = linked(writer.gone, ending);
  // Once the head is out an error can no longer be a response; until then it is thrown to the caller.
  let headSent = false;
  let early: { error: unknown } | undefined;

  const out = { write: (text: string) => send(writer, text), comment: writer.comment };
  const work = async (): Promise<void> => dialect.run(signal, out);
  const done = work()
    .finally(unlink)
    .then(
      () => finish(writer, dialect.done, "completed"),
      async (error: unknown) => {
        if (!headSent && !writer.wrote && !writer.gone.aborted) {
          early = { error };
          return writer.close();
        }
        if (writer.gone.aborted) return finish(writer, "", "client_left");
        const closing = ending.aborted && error instanceof PreceptorError && error.code === "cancelled";
        const shown = closing ? fail("draining", "The server is shutting down; send the request again.") : error;
        const body = await streamError(shown, c);
        return finish(writer, dialect.failure(body), closing ? "server_closing" : "failed");
      },
    );

  await firstEvent(writer, done);
  if (early) throw early.error;
  headSent = true;
  c.set("streamEnded", writer.ended);
  joinHead(c);
  return c.body(writer.body, 200, {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    // nginx buffers responses unless told otherwise
    "x-accel-buffering": "no",
    // Otherwise the HTTP adapter waits a moment for the end of the body, hoping to name its length, before it sends anything.
    "transfer-encoding": "chunked",
  });
}

/** The adapter writes the head by itself; held back until this turn of the loop ends, it travels with the first event. */
function joinHead(c: ApiContext): void {
  const outgoing = (c.env as { outgoing?: ServerResponse } | undefined)?.outgoing;
  if (!outgoing) return;
  outgoing.cork();
  setImmediate(() => outgoing.uncork());
}

async function firstEvent(writer: EventWriter, done: Promise<void>): Promise<void> {
  let patience: NodeJS.Timeout | undefined;
  const waited = new Promise<void>((resolve) => {
    patience = setTimeout(resolve, FIRST_EVENT_WAIT_MS).unref();
  });
  await Promise.race([writer.started, done, waited]);
  clearTimeout(patience);
}

function send(writer: EventWriter, text: string): Promise<void> {
  if (writer.gone.aborted) return Promise.reject(fail("cancelled", "The client closed the connection."));
  return writer.write(text);
}

async function finish(writer: EventWriter, last: string, outcome: StreamOutcome): Promise<void> {
  if (last !== "") await writer.write(last);
  writer.close();
  writer.end(writer.gone.aborted ? "client_left" : outcome);
}
