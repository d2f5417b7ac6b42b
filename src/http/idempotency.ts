/**
 * `Idempotency-Key`: whoever did not hear the answer asks again with the same key and gets the answer of the first time.
 * Kept are answers of success; a request that failed may be repeated as it is. Two at the same time: the second is told to
 * come back, rather than to wait on a connection that its proxy may cut.
 */
import { createHash } from "node:crypto";
import type { MiddlewareHandler } from "hono";
import { canonicalJson } from "../canonical-json.ts";
import type { IdempotencyStore, KeyOf, StoredResponse } from "../db/idempotency-store.ts";
import { fail } from "../errors.ts";
import type { ApiContext, ApiEnv } from "./context.ts";
import { boundaryOf, readMultipart } from "./multipart.ts";
import { hashedParts } from "./multipart-hash.ts";

const HEADER = "Idempotency-Key";
/** Printable ASCII, as long as anybody's: a UUID has 36. */
const KEY = /^[\x21-\x7e]{1,255}$/;
/** Three in a claim's life: two may be lost. */
const RENEW_MS = 10_000;
const RETRY_AFTER_SECONDS = 2;
const FORM = /^multipart\/form-data\s*(;|$)/i;

/** `isCreating`: whether a POST to this path creates; of others, which may be repeated as they are, the key is ignored. */
export function idempotency(store: IdempotencyStore, isCreating: (path: string) => boolean): MiddlewareHandler<ApiEnv> {
  return async function idempotency(c, next) {
    const key = c.req.header(HEADER);
    if (key === undefined || c.req.method !== "POST" || !isCreating(c.req.path)) return next();
    if (!KEY.test(key)) {
      throw fail("invalid_value", `${HEADER} must have 1 to 255 printable characters of ASCII`, { param: HEADER });
    }
    const of: KeyOf = { owner: c.var.principal.id, key };
    const isForm = FORM.test(c.req.header("content-type") ?? "");
    const body = isForm ? null : await bodyOf(c);
    if (body?.stream) {
      throw fail("unsupported_parameter", `${HEADER}: a streamed answer cannot be given again; leave it out`, {
        param: HEADER,
      });
    }
    const hash = body && hashOf(c, body.text);
    const claimed = await store.claim(of, hash);
    if (claimed.state === "ours") return work(c, store, of, { token: claimed.token, hash, next });
    const first = claimed.state === "done" ? claimed.response.requestHash : claimed.requestHash;
    const now = hash ?? (claimed.state === "done" ? await formHash(c) : null);
    if (first !== null && now !== null && first !== now) {
      throw fail(
        "idempotency_key_reused",
        `${HEADER}: another request was sent with this key; take a new one for each`,
        {
          param: HEADER,
        },
      );
    }
    if (claimed.state === "under_way") {
      // The rest of a form is not wanted.
      if (isForm) c.header("Connection", "close");
      throw fail(
        "idempotency_in_progress",
        "The first request with this key is still under way; ask again in a moment.",
        {
          param: HEADER,
          retryAfterSeconds: RETRY_AFTER_SECONDS,
        },
      );
    }
    return answer(c, claimed.response);
  };
}

interface Work {
  token: string;
  /** null: of a form it is known at its end. */
  hash: string | null;
  next(): Promise<void>;
}

async function work(c: ApiContext, store: IdempotencyStore, of: KeyOf, { token, hash, next }: Work): Promise<void> {
  const form = createHash("sha256");
  c.set("formHash", form);
  const failed = (what: string) => (error: unknown) => c.var.log.warn({ err: error }, what);
  // Without it the key is free half a minute later, which is what the caller of a killed server waits for.
  const beat = setInterval(() => {
    store.renew(of, token).catch(failed("an idempotency key could not be renewed"));
  }, RENEW_MS);
  try {
    await next();
    const { status } = c.res;
    if (!isKept(c.res)) return await store.release(of, token).catch(failed("an idempotency key was not released"));
    const requestHash = hash ?? hashOf(c, form.digest("hex"));
    const response: StoredResponse = { status, body: await c.res.clone().text(), requestHash };
    // What was made is made: the caller hears of it, whether or not it can be told twice.
    await store.complete(of, token, response).catch(failed("an answer could not be kept for its idempotency key"));
  } finally {
    clearInterval(beat);
  }
}

const isKept = ({ status, headers }: Response): boolean =>
  status >= 200 && status < 300 && (headers.get("content-type") ?? "").startsWith("application/json");

function answer(c: ApiContext, { status, body }: StoredResponse): Response {
  return c.body(body, status as 200, { "content-type": "application/json", "idempotent-replayed": "true" });
}

/** Bodies that say the same are the same, however they are written. */
async function bodyOf(c: ApiContext): Promise<{ text: string; stream: boolean }> {
  // Read by json-body.ts; other media types are none of ours, and their routes refuse them.
  const cached = c.req.bodyCache.text;
  const text = cached === undefined ? "" : await c.req.text();
  try {
    const value = JSON.parse(text) as unknown;
    const stream = (value as { stream?: unknown } | null)?.stream === true;
    return { text: canonicalJson(value) ?? text, stream };
  } catch {
    return { text, stream: false };
  }
}

const hashOf = (c: ApiContext, body: string): string =>
  createHash("sha256").update(`${c.req.path}\0${body}`).digest("hex");

/** Reads a form for nothing but to see whether it is the one of the first time. */
async function formHash(c: ApiContext): Promise<string> {
  const form = createHash("sha256");
  const { body } = c.req.raw;
  if (body) {
    const parts = readMultipart(
      body as unknown as AsyncIterable<Uint8Array>,
      boundaryOf(c.req.header("content-type")!),
    );
    for await (const part of hashedParts(parts, form)) for await (const _ of part.body);
  }
  return hashOf(c, form.digest("hex"));
}
