/**
 * Reads a JSON body once, bounded and as strict UTF-8, before any route sees it. (`Request.json()` would replace broken
 * bytes by U+FFFD in silence and read without a limit.) Other media types are left to the routes that declare them.
 */
import { IncomingMessage } from "node:http";
import type { MiddlewareHandler } from "hono";
import { fail } from "../errors.ts";
import type { ApiContext, ApiEnv } from "./context.ts";
import { assertModest } from "./json-shape.ts";

const JSON_TYPE = /^application\/([\w.+-]+\+)?json\s*(;|$)/i;
/** 8 MiB in two minutes is a slow line, slower is none. */
const ARRIVAL_LIMIT_MS = 120_000;

export function jsonBodyReader(maxBytes: number): MiddlewareHandler<ApiEnv> {
  return async function jsonBodyReader(c, next) {
    const { method } = c.req;
    if (method !== "GET" && method !== "HEAD") {
      const encoding = c.req.header("content-encoding");
      if (encoding !== undefined && encoding !== "identity") {
        throw fail("unsupported_media_type", "Compressed request bodies are not supported; send the JSON as it is.");
      }
      if (JSON_TYPE.test(c.req.header("content-type") ?? "")) {
        // c.req.json() and the validators read from here.
        const text = decode(await readBounded(c, maxBytes));
        assertModest(text);
        c.req.bodyCache.text = Promise.resolve(text) as never;
      }
    }
    await next();
  };
}

async function readBounded(c: ApiContext, maxBytes: number): Promise<Uint8Array> {
  if (Number(c.req.header("content-length") ?? 0) > maxBytes) throw tooLarge(c, maxBytes);
  const chunks: Uint8Array[] = [];
  let size = 0;
  const deadline = performance.now() + ARRIVAL_LIMIT_MS;
  // A stated length does not bind every transport, so what arrives is counted too.
  const body = bodyOf(c);
  while (body) {
    const { done, value } = await inTime(body.next(), deadline);
    if (done) break;
    size += value.byteLength;
    if (size > maxBytes) {
      await body.return?.().catch(() => {});
      throw tooLarge(c, maxBytes);
    }
    chunks.push(value);
  }
  return Buffer.concat(chunks, size);
}

/** From node-server straight off the socket: the web request around it costs more than all else that is done with a small body. */
function bodyOf(c: ApiContext): AsyncIterator<Uint8Array> | undefined {
  const incoming = (c.env as { incoming?: unknown } | undefined)?.incoming;
  if (incoming instanceof IncomingMessage && !incoming.readableDidRead)
    return incoming.iterator({ destroyOnReturn: false });
  return c.req.raw.body?.[Symbol.asyncIterator]();
}

async function inTime<T>(read: Promise<T>, deadline: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    const refuse = (): void => reject(fail("invalid_request", "The request body took too long to arrive."));
    timer = setTimeout(refuse, deadline - performance.now());
  });
  try {
    return await Promise.race([read, late]);
  } finally {
    clearTimeout(timer);
  }
}

function tooLarge(c: ApiContext, maxBytes: number): Error {
  // The rest of the body is not wanted: let the client stop sending it.
  c.header("Connection", "close");
  return fail("payload_too_large", `The request body is larger than ${maxBytes} bytes. Send it in several requests.`);
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw fail("invalid_json", "The body is not valid UTF-8.");
  }
}
