/** The listening socket: time limits towards clients, and an end that loses no work it could finish. */
import { createServer, type Server as HttpServer, type ServerResponse, STATUS_CODES } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { getRequestListener, RequestError } from "@hono/node-server";
import { fail, type PreceptorError } from "../errors.ts";
import { newId } from "../ids.ts";
import type { ApiApp } from "./context.ts";
import { errorEnvelope } from "./errors.ts";
import type { Lifecycle } from "./lifecycle.ts";

/** A client that takes longer than this for its request line and headers is stuck or hostile. */
const HEADERS_TIMEOUT_MS = 20_000;
/**
 * The same for the whole request: a dataset of a gigabyte over a line of 2.5 Mbit/s. JSON bodies have less time (json-body.ts),
 * and an upload that stands still is ended sooner (multipart.ts). Responses have no limit.
 */
const REQUEST_TIMEOUT_MS = 3_600_000;
/** Longer than the 60 s after which common proxies drop idle connections, so that they close first and lose no request. */
const KEEP_ALIVE_MS = 75_000;
/** How long streams get to send their last event before connections are cut. */
const LAST_WORDS_MS = 1_000;
/** A generation of a few hundred tokens on a CPU; orchestrators kill after 30 s. */
const DEFAULT_GRACE_MS = 25_000;

export interface RunningServer {
  /** As a client on this machine would write it: `http://127.0.0.1:8080`. */
  readonly url: string;
  readonly port: number;
  /**
   * Refuses new requests (503, `/readyz` too), waits up to `graceMs` for those under way, then ends open streams with
   * an error event, stops listening and cuts what is left. Called again, it waits for the same end.
   */
  close(graceMs?: number): Promise<void>;
}

export interface ServerOptions {
  host: string;
  /** 0 picks a free port. */
  port: number;
  /** The one given to createApp. */
  lifecycle: Lifecycle;
}

/** Throws an Error that says what to do when the address is taken or not ours. */
export async function startServer(app: ApiApp, { host, port, lifecycle }: ServerOptions): Promise<RunningServer> {
  const answer = getRequestListener(app.fetch, { hostname: host, errorHandler: outsideApp });
  // Node's own answer to a missing Host has no body.
  const server = createServer({ requireHostHeader: false }, (request, response) => {
    if (request.headers.host === undefined && request.httpVersion === "1.1") refuse(response, NO_HOST);
    else void answer(request, response);
  });
  server.headersTimeout = HEADERS_TIMEOUT_MS;
  server.requestTimeout = REQUEST_TIMEOUT_MS;
  server.keepAliveTimeout = KEEP_ALIVE_MS;
  server.on("clientError", answerClientError);
  const idle = watchIdle(server);
  await listen(server, host, port);

  const address = server.address() as AddressInfo;
  let closing: Promise<void> | undefined;
  return {
    url: `http://${reachable(host)}:${address.port}`,
    port: address.port,
    close(graceMs = DEFAULT_GRACE_MS) {
      closing ??= (async () => {
        lifecycle.drain();
        await Promise.race([idle(), pause(graceMs)]);
        lifecycle.endStreams();
        const closed = new Promise<void>((resolve) => server.close(() => resolve()));
        await Promise.race([closed, pause(LAST_WORDS_MS)]);
        server.closeAllConnections();
        await closed;
      })();
      return closing;
    },
  };
}

function listen(server: HttpServer, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) =>
      reject(new Error(bindFault(error, host, port), { cause: error })),
    );
    server.listen(port, host, resolve);
  });
}

function bindFault(error: NodeJS.ErrnoException, host: string, port: number): string {
  switch (error.code) {
    case "EADDRINUSE":
      return `Port ${port} on ${host} is in use. Stop the other program, or set PRECEPTOR_PORT (0 picks a free port).`;
    case "EACCES":
      return `Port ${port} on ${host} needs privileges. Set PRECEPTOR_PORT to one above 1023.`;
    case "EADDRNOTAVAIL":
    case "ENOTFOUND":
      return `${host} is not an address of this machine. Set PRECEPTOR_HOST to one, or to 0.0.0.0 for all.`;
    default:
      return `The server cannot listen on ${host}:${port}: ${error.message}`;
  }
}

/** Resolves when no request is under way; a response counts until its last byte is out. */
function watchIdle(server: HttpServer): () => Promise<void> {
  let open = 0;
  const waiting: (() => void)[] = [];
  server.prependListener("request", (_, response) => {
    open++;
    response.once("close", () => {
      open--;
      if (open === 0) for (const resolve of waiting.splice(0)) resolve();
    });
  });
  return () => (open === 0 ? Promise.resolve() : new Promise((resolve) => waiting.push(resolve)));
}

/** Requests that Node's parser refuses never reach the app; they get the same error shape. */
function answerClientError(error: NodeJS.ErrnoException, socket: Socket): void {
  if (!socket.writable || error.code === "ECONNRESET") return void socket.destroy();
  const [status, message] =
    error.code === "HPE_HEADER_OVERFLOW"
      ? [431, "The headers are too large."]
      : error.code === "ERR_HTTP_REQUEST_TIMEOUT"
        ? [408, "The request took too long to arrive."]
        : [400, "This is not a valid HTTP request."];
  const body = JSON.stringify(errorEnvelope(fail("invalid_request", message)));
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nContent-Type: application/json\r\nx-request-id: ${newId("req")}\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}

const NO_HOST = fail("invalid_request", "The Host header is missing.");

function refuse(response: ServerResponse, error: PreceptorError): void {
  const body = JSON.stringify(errorEnvelope(error));
  response.writeHead(error.status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
    "x-request-id": newId("req"),
    connection: "close",
  });
  response.end(body);
}

/** The app answers its own errors; what ends here happened before it (a Host that is none) or is a fault of ours. */
function outsideApp(cause: unknown): Response {
  const error =
    cause instanceof RequestError
      ? fail("invalid_request", "The request line or the Host header is not valid.")
      : fail("internal_error", "The server failed on this request.");
  return Response.json(errorEnvelope(error), { status: error.status, headers: { "x-request-id": newId("req") } });
}

function reachable(host: string): string {
  if (host === "0.0.0.0") return "127.0.0.1";
  if (host === "::") return "[::1]";
  return host.includes(":") ? `[${host}]` : host;
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => void setTimeout(resolve, ms).unref());
}
