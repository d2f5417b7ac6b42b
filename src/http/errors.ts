/** The one mapper from anything thrown to the response of the API. Unknown errors become a 500 that tells nothing. */
import type { Context } from "hono";
import { HTTPException } from "hono/http-exception";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { z } from "zod";
import { CATALOGUE, type ErrorBody, type ErrorCode, fail, PreceptorError } from "../errors.ts";
import type { ApiEnv } from "./context.ts";
import { validationError } from "./validation.ts";

/** Seconds, where the thrower named none: loading and draining are over soon, a full queue sooner. */
const RETRY_AFTER_S: Partial<Record<number, number>> = { 429: 1, 503: 5 };

export interface ErrorEnvelope {
  error: ErrorBody;
}

/** Body, status and headers for anything thrown; the log line goes with it. Streams use the body alone. */
export async function errorResponse(error: unknown, c: Context<ApiEnv>): Promise<Response> {
  const known = await toPreceptorError(error, c);
  logError(known, error, c);
  const { status } = known;
  const retryAfter = known.retryAfterSeconds ?? RETRY_AFTER_S[status];
  if (retryAfter !== undefined) c.header("Retry-After", String(Math.ceil(retryAfter)));
  // OpenAI's clients retry every 409; ours are permanent (a conflict with what is stored), but for one that passes.
  if (status === 409) c.header("x-should-retry", String(known.code === "idempotency_in_progress"));
  return c.json<ErrorEnvelope>(errorEnvelope(known), status as ContentfulStatusCode);
}

export function errorEnvelope(error: PreceptorError): ErrorEnvelope {
  return { error: error.toBody() };
}

/** What a stream sends when it fails after its first byte; logged like any other error. */
export async function streamError(error: unknown, c: Context<ApiEnv>): Promise<ErrorEnvelope> {
  const known = await toPreceptorError(error, c);
  logError(known, error, c);
  return errorEnvelope(known);
}

async function toPreceptorError(error: unknown, c: Context<ApiEnv>): Promise<PreceptorError> {
  if (error instanceof PreceptorError) return error;
  if (error instanceof z.core.$ZodError) return validationError(error);
  if (error instanceof HTTPException) return fromHttpException(error, c);
  if (c.req.raw.signal.aborted) return fail("cancelled", "The client closed the connection.", { cause: error });
  return fail("internal_error", `The server failed on this request. Its log has the reason under ${c.var.requestId}.`);
}

/** What hono and its validators throw by themselves, in our words. */
async function fromHttpException(error: HTTPException, c: Context<ApiEnv>): Promise<PreceptorError> {
  const sent = c.req.header("content-type");
  switch (error.status) {
    case 400:
      return error.message.startsWith("Malformed JSON")
        ? fail("invalid_json", `The body is not valid JSON: ${await jsonFault(c)}`)
        : fail("invalid_request", error.message);
    case 413:
      return fail("payload_too_large", "The request body is too large.");
    case 415:
      return fail(
        "unsupported_media_type",
        `Content-Type is ${sent ? JSON.stringify(sent.slice(0, 100)) : "missing"}; send application/json.`,
      );
    default: {
      const code = codeOfStatus(error.status);
      return fail(code, code === "internal_error" ? "The server failed on this request." : error.message);
    }
  }
}

async function jsonFault(c: Context<ApiEnv>): Promise<string> {
  try {
    const text = await c.req.text();
    if (text.trim() === "") return "it is empty";
    JSON.parse(text);
    return "it could not be read";
  } catch (error) {
    return error instanceof SyntaxError ? error.message.slice(0, 200) : "it could not be read";
  }
}

function codeOfStatus(status: number): ErrorCode {
  const found = (Object.keys(CATALOGUE) as ErrorCode[]).find((code) => CATALOGUE[code][0] === status);
  return found ?? (status < 500 ? "invalid_request" : "internal_error");
}

function logError(known: PreceptorError, original: unknown, c: Context<ApiEnv>): void {
  const { log } = c.var;
  // Not now, but soon: loading, draining, a database on its way back. The client is told; a stack would tell nothing.
  if (known.status === 503) log.warn({ code: known.code, reason: known.message }, "request put off");
  else if (known.status >= 500) log.error({ err: original, code: known.code }, "request failed");
  else if (known.cause !== undefined) log.warn({ err: known.cause, code: known.code }, "request refused");
  else log.debug({ code: known.code, param: known.param, reason: known.message }, "request refused");
}
