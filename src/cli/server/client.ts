import { request as httpRequest, type IncomingMessage } from "node:http";
import { request as httpsRequest } from "node:https";
import { setTimeout as delay } from "node:timers/promises";
import { parseEvents, type ServerEvent } from "../../parse-events.ts";
import { CliError, usage } from "../errors.ts";

export interface ClientOptions {
  /** `http://127.0.0.1:8080` */
  url: string;
  apiKey?: string | undefined;
  /** Told once when the server asks to wait while it downloads, converts or loads a model. */
  onWait?: ((message: string) => void) | undefined;
}

export interface CallOptions {
  body?: unknown;
  signal?: AbortSignal | undefined;
}

/** A running server, spoken to over HTTP. Failures are CliErrors that say what to do next. */
export interface Client {
  readonly url: string;
  json<T>(method: "GET" | "POST" | "DELETE", path: string, options?: CallOptions): Promise<T>;
  /** Events of a streaming POST; ends with the stream, throws what an `error` event says. */
  events(path: string, options: CallOptions): AsyncGenerator<ServerEvent>;
}

/** Largest JSON answer that is read: 20 scores with tokens are a few MB. */
const MAX_ANSWER_BYTES = 256 * 1024 * 1024;

/** A large download takes longer, but then people would rather have their terminal back. */
const LONGEST_WAIT_MS = 10 * 60_000;

export function createClient({ url, apiKey, onWait }: ClientOptions): Client {
  const base = parseBase(url);

  /** node:http instead of fetch: fetch gives up after five minutes without headers, and a long score may take longer. */
  function send(method: string, path: string, accept: string, { body, signal }: CallOptions): Promise<IncomingMessage> {
    const target = new URL(base.pathname.replace(/\/$/, "") + path, base);
    const payload = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
    const open = target.protocol === "https:" ? httpsRequest : httpRequest;
    return new Promise((resolve, reject) => {
      const outgoing = open(
        target,
        {
          method,
          ...(signal ? { signal } : {}),
          headers: {
            accept,
            ...(apiKey ? { authorization: `Bearer ${apiKey}` } : {}),
            ...(payload ? { "content-type": "application/json", "content-length": payload.length } : {}),
          },
        },
        resolve,
      );
      outgoing.on("error", (error) => reject(connectionError(url, error, signal)));
      outgoing.end(payload);
    });
  }

  /** The answer, once it is a good one: a model that is being prepared is waited for, as the server asks. */
  async function answer(method: string, path: string, accept: string, options: CallOptions): Promise<IncomingMessage> {
    const deadline = performance.now() + LONGEST_WAIT_MS;
    for (let told = false; ; told = true) {
      const response = await send(method, path, accept, options);
      const status = response.statusCode ?? 0;
      if (status >= 200 && status < 300) return response;
      const text = await readText(response);
      const error = errorBody(text);
      const waitMs = Number(response.headers["retry-after"]) * 1000;
      if (error?.code !== "model_loading" || !(waitMs > 0) || performance.now() + waitMs > deadline) {
        throw answerError(status, text, response.headers, url);
      }
      if (!told) onWait?.(error.message);
      await delay(waitMs, undefined, options.signal ? { signal: options.signal } : {});
    }
  }

  return {
    url,
    async json<T>(method: string, path: string, options: CallOptions = {}): Promise<T> {
      const response = await answer(method, path, "application/json", options);
      const text = await readText(response);
      try {
        return JSON.parse(text) as T;
      } catch {
        throw notPreceptor(url);
      }
    },
    async *events(path, options) {
      const response = await answer("POST", path, "text/event-stream", options);
      try {
        for await (const event of parseEvents(response)) {
          if (event.event === "error") throw answerError(response.statusCode ?? 0, event.data, response.headers, url);
          yield event;
        }
      } catch (error) {
        if (error instanceof CliError) throw error;
        throw connectionError(url, error as Error, options.signal);
      } finally {
        response.destroy();
      }
    },
  };
}

function parseBase(url: string): URL {
  const base = URL.canParse(url) ? new URL(url) : undefined;
  if (!base || (base.protocol !== "http:" && base.protocol !== "https:")) {
    throw usage(
      `The server's address "${url}" is not an http:// or https:// URL; give one with --url or PRECEPTOR_URL.`,
    );
  }
  return base;
}

async function readText(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_ANSWER_BYTES) throw new CliError("The server's answer is larger than 256 MiB; ask for fewer items.");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function connectionError(url: string, error: NodeJS.ErrnoException, signal: AbortSignal | undefined): Error {
  if (signal?.aborted) return error;
  if (error.code === "ECONNREFUSED") {
    return new CliError(
      `No server answers at ${url}. Start one with "preceptor serve", or name another with --url or PRECEPTOR_URL.`,
      undefined,
      error,
    );
  }
  if (error.code === "ECONNRESET" || error.message === "aborted") {
    return new CliError(
      `The server at ${url} closed the connection before it had finished; its log says why.`,
      undefined,
      error,
    );
  }
  return new CliError(`Cannot reach ${url}: ${error.message}. Check --url or PRECEPTOR_URL.`, undefined, error);
}

function notPreceptor(url: string): CliError {
  return new CliError(`What answers at ${url} is not Preceptor; name the right address with --url or PRECEPTOR_URL.`);
}

/** An error body of the API (or of an `error` event) as one line, with the next step where the command line knows it. */
function answerError(status: number, text: string, headers: IncomingMessage["headers"], url: string): CliError {
  const body = errorBody(text);
  if (!body) {
    return status === 0 || status >= 500
      ? new CliError(`The server at ${url} failed with status ${status}; its log says why.`)
      : notPreceptor(url);
  }
  const { message } = body;
  const hint =
    status === 401
      ? "Set PRECEPTOR_API_KEY to the server's key."
      : headers["retry-after"]
        ? `Try again in ${headers["retry-after"]} s.`
        : "";
  const where = body.param && !message.includes(body.param) ? ` (${body.param})` : "";
  const id = status >= 500 && headers["x-request-id"] ? ` [${String(headers["x-request-id"])}]` : "";
  const said = `${message.replace(/\.$/, "")}${where}${id}`;
  return new CliError(hint ? `${said}. ${hint}` : said);
}

function errorBody(text: string): { message: string; code?: string; param?: string | null } | undefined {
  try {
    const parsed = JSON.parse(text) as { error?: { message?: unknown } };
    return typeof parsed.error?.message === "string"
      ? (parsed.error as { message: string; code?: string; param?: string | null })
      : undefined;
  } catch {
    return undefined;
  }
}
