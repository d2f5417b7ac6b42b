/** HTTP to one base URL: JSON and event streams, time limits, and failures in the server's own words. */
import type { IncomingMessage } from "node:http";
import { reasonOf } from "../../error-reason.ts";
import { show } from "../../model/json.ts";
import { parseEvents } from "../../parse-events.ts";
import { garbage, RemoteFailure } from "./failure.ts";
import type { SendHttp } from "./http.ts";
import {
  AFTER_DONE_MS,
  ANSWER_TIMEOUT_MS,
  CHUNK_TIMEOUT_MS,
  ERROR_BODY_TIMEOUT_MS,
  FIRST_EVENT_TIMEOUT_MS,
  MAX_ANSWER_BYTES,
  MAX_ERROR_BYTES,
  MAX_ERROR_CHARS,
  MAX_PAUSE_MS,
  QUESTION_TIMEOUT_MS,
  STREAM_TIMEOUT_MS,
} from "./limits.ts";
import { createPatience, type Patience } from "./patience.ts";

export interface Connection {
  /** `host:port`, for logs, metrics and messages; with the path where another replica has the same. */
  readonly where: string;
  /** `path` below the base URL (`/models`), or below the server's root with `root: true`. */
  get(path: string, options?: AskOptions): Promise<unknown>;
  post(path: string, body: object, options?: AskOptions): Promise<unknown>;
  /** The data of each event, parsed, until `[DONE]` or the end. `timeoutMs`: for all of them, where that is known. */
  events(path: string, body: object, signal: AbortSignal, timeoutMs?: number): AsyncGenerator<unknown>;
}

export interface AskOptions {
  signal?: AbortSignal | undefined;
  /** To the whole answer, however it comes. */
  timeoutMs?: number;
  root?: boolean;
  /** What it answers is of no interest and may be anything. */
  anyAnswer?: boolean;
}

export interface ConnectionDeps {
  send: SendHttp;
  baseUrl: string;
  key: string | undefined;
  /** Base URLs of the whole pool: two on one host are told apart by their paths. */
  pool?: readonly string[];
}

export function createConnection({ send, baseUrl, key, pool = [baseUrl] }: ConnectionDeps): Connection {
  const { origin, host, pathname } = new URL(baseUrl);
  const where = pool.filter((other) => new URL(other).host === host).length > 1 ? host + pathname : host;

  async function answer(
    url: string,
    body: object | undefined,
    signal: AbortSignal,
    patience: Patience,
  ): Promise<IncomingMessage> {
    let response: IncomingMessage;
    try {
      response = await send(url, {
        method: body === undefined ? "GET" : "POST",
        headers: {
          "user-agent": "preceptor",
          ...(body === undefined ? {} : { "content-type": "application/json" }),
          ...(key === undefined ? {} : { authorization: `Bearer ${key}` }),
        },
        body: body && JSON.stringify(body),
        signal,
      });
    } catch (cause) {
      throw patience.failure() ?? new RemoteFailure("unreachable", `cannot be reached (${reasonOf(cause)})`, { cause });
    }
    const { statusCode: status = 0 } = response;
    if (status >= 200 && status < 300) return response;
    throw await refusal(response, key, patience);
  }

  async function ask(path: string, body: object | undefined, options: AskOptions): Promise<unknown> {
    const { signal, timeoutMs = body === undefined ? QUESTION_TIMEOUT_MS : ANSWER_TIMEOUT_MS, root = false } = options;
    const patience = createPatience(signal, timeoutMs, timeoutMs);
    try {
      const response = await answer((root ? origin : baseUrl) + path, body, patience.signal, patience);
      const text = await readAll(response, patience);
      if (options.anyAnswer) return null;
      try {
        return JSON.parse(text) as unknown;
      } catch (cause) {
        throw garbage(`answered ${quoted(text, key)}, which is not JSON`, cause);
      }
    } finally {
      patience.end();
    }
  }

  return {
    where,
    get: (path, options = {}) => ask(path, undefined, options),
    post: (path, body, options = {}) => ask(path, body, options),
    async *events(path, body, signal, timeoutMs) {
      const patience = createPatience(signal, ANSWER_TIMEOUT_MS, timeoutMs ?? FIRST_EVENT_TIMEOUT_MS);
      let response: IncomingMessage | undefined;
      let begun = false;
      let complete = false;
      // Comments tell that a request still waits for its turn, but not that an answer goes on.
      const heard = (): void => {
        if (!begun) patience.renew(ANSWER_TIMEOUT_MS);
      };
      try {
        response = await answer(baseUrl + path, body, patience.signal, patience);
        if (!/^text\/event-stream\b/.test(response.headers["content-type"] ?? "")) {
          throw garbage("answered no event stream where one was asked for");
        }
        for await (const { data } of parseEvents(listened(response, heard))) {
          if (complete) continue;
          if (!begun && timeoutMs === undefined) patience.limit(STREAM_TIMEOUT_MS);
          begun = true;
          patience.renew(CHUNK_TIMEOUT_MS);
          complete = data === "[DONE]";
          if (complete) patience.limit(AFTER_DONE_MS);
          else yield parsedEvent(data, key);
        }
        complete = true;
      } catch (error) {
        if (complete) return;
        if (error instanceof RemoteFailure) throw error;
        throw (
          patience.failure() ??
          new RemoteFailure("failed", `broke off its answer (${reasonOf(error)})`, { cause: error })
        );
      } finally {
        // A connection whose answer was read to its end serves the next request; any other is cut, which ends the work there.
        if (!complete) response?.destroy();
        patience.end();
      }
    },
  };
}

async function* listened(body: AsyncIterable<Uint8Array>, heard: () => void): AsyncGenerator<Uint8Array> {
  for await (const chunk of body) {
    heard();
    yield chunk;
  }
}

async function readAll(response: IncomingMessage, patience: Patience): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  try {
    for await (const chunk of listened(response, () => patience.renew(CHUNK_TIMEOUT_MS))) {
      bytes += chunk.length;
      if (bytes > MAX_ANSWER_BYTES) throw garbage("sends an answer without an end");
      chunks.push(chunk);
    }
  } catch (error) {
    if (error instanceof RemoteFailure) throw error;
    throw (
      patience.failure() ?? new RemoteFailure("failed", `broke off its answer (${reasonOf(error)})`, { cause: error })
    );
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** The beginning of a refusal's body; a longer one is cut, and its connection with it. */
async function readError(response: IncomingMessage, patience: Patience): Promise<string> {
  patience.limit(ERROR_BODY_TIMEOUT_MS);
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  try {
    for await (const chunk of response as AsyncIterable<Uint8Array>) {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes >= MAX_ERROR_BYTES) break;
    }
  } catch {
    // What has come must do.
  }
  return Buffer.concat(chunks).subarray(0, MAX_ERROR_BYTES).toString("utf8");
}

/** vLLM and Preceptor report what goes wrong in the middle of a stream as an event of its own. */
function parsedEvent(data: string, key: string | undefined): unknown {
  let value: unknown;
  try {
    value = JSON.parse(data);
  } catch (cause) {
    throw garbage(`sent ${quoted(data, key)}, which is not JSON`, cause);
  }
  const message = messageOf(value);
  if (message !== undefined) throw new RemoteFailure("failed", `broke off with: ${quoted(message, key)}`);
  return value;
}

async function refusal(response: IncomingMessage, key: string | undefined, patience: Patience): Promise<RemoteFailure> {
  const { statusCode: status = 0, headers } = response;
  if (status >= 300 && status < 400) {
    // A server that redirects would decide where our key and our texts go.
    response.destroy();
    const to = headers.location;
    return new RemoteFailure(
      "refused",
      `redirects${to ? ` to ${quoted(hostOf(to), key)}` : ""}, which is not followed; register the address it answers at`,
      { status },
    );
  }
  const text = await readError(response, patience);
  const said = sentence(text, key);
  const details = { status, retryAfterMs: retryAfter(response) };
  if (status === 429 || status === 503) return new RemoteFailure("busy", `answered ${status}${said}`, details);
  if (status >= 500 || status === 408) return new RemoteFailure("failed", `answered ${status}${said}`, details);
  const hint = status === 401 || status === 403 ? ". Does `credential` name the right key?" : "";
  return new RemoteFailure("refused", `answered ${status}${said}${hint}`, details);
}

function sentence(text: string, key: string | undefined): string {
  let said = text;
  try {
    said = messageOf(JSON.parse(text)) ?? text;
  } catch {
    // Not JSON: the text itself.
  }
  return said.trim() === "" ? "" : `: ${quoted(said, key)}`;
}

/** OpenAI's form, an older vLLM's, and FastAPI's. */
function messageOf(value: unknown): string | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { error, message, detail, object } = value as Record<string, unknown>;
  if (typeof error === "string") return error;
  if (typeof error === "object" && error !== null && typeof (error as { message?: unknown }).message === "string") {
    return (error as { message: string }).message;
  }
  if (object === "error" && typeof message === "string") return message;
  return detail === undefined ? undefined : typeof detail === "string" ? detail : show(detail, MAX_UNCLEAN_CHARS);
}

/** Room for the spaces and control characters that cleaning takes out. */
const MAX_UNCLEAN_CHARS = 4 * MAX_ERROR_CHARS;

/** The server's own words, short, on one line, without the key should it repeat it. */
function quoted(text: string, key: string | undefined): string {
  const clean = withoutKey(text, key)
    .replace(/[\p{Cc}\p{Cf}\s]+/gu, " ")
    .trim();
  const whole = clean.length <= MAX_ERROR_CHARS && text.length <= MAX_UNCLEAN_CHARS;
  return JSON.stringify(whole ? clean : `${clean.slice(0, MAX_ERROR_CHARS)}…`);
}

/** The beginning of a text; where the cut goes through the key, none of it is left. */
function withoutKey(text: string, key: string | undefined): string {
  const start = text.slice(0, MAX_UNCLEAN_CHARS);
  if (!key) return start;
  const clean = start.replaceAll(key, "…");
  if (start.length === text.length) return clean;
  for (let length = Math.min(key.length - 1, clean.length); length > 0; length--) {
    if (clean.endsWith(key.slice(0, length))) return clean.slice(0, -length);
  }
  return clean;
}

function hostOf(location: string): string {
  return URL.canParse(location) ? new URL(location).host : location;
}

/** Seconds or a date (RFC 9110, 10.2.3). */
function retryAfter({ headers: { "retry-after": value } }: IncomingMessage): number | undefined {
  if (value === undefined) return undefined;
  const ms = /^\s*\d+(\.\d+)?\s*$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isFinite(ms) ? Math.min(Math.max(0, ms), MAX_PAUSE_MS) : undefined;
}
