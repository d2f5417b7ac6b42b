import { setTimeout as wait } from "node:timers/promises";
import { isAllowedHost } from "../../allowed-hosts.ts";
import { reasonOf } from "../../error-reason.ts";
import { fail, type PreceptorError } from "../../errors.ts";
import type { HubDeps } from "./types.ts";

/** Enough for a hub that redirects to a mirror and from there to a CDN. */
const MAX_REDIRECTS = 8;
/** A failing hub is asked six times over about half a minute. */
export const MAX_ATTEMPTS = 6;
const FIRST_DELAY_MS = 500;
const MAX_DELAY_MS = 15_000;
/** A server that sends nothing for this long is treated as a cut connection. */
export const IDLE_TIMEOUT_MS = 30_000;

export interface HubResponse {
  /** The last response, after redirects. */
  response: Response;
  /** Headers of the endpoint's own answer: the etag and size of a large file stand there, not at the CDN. */
  first: Headers;
}

export interface RequestOptions {
  method?: "GET" | "HEAD";
  headers?: Readonly<Record<string, string>>;
  /** Stop at the first redirect that leaves the endpoint, whose headers are all that is wanted. */
  headersOnly?: boolean;
  /** Default: `deps.signal` and a limit on the whole exchange. */
  signal?: AbortSignal;
}

/** Questions that are answered in a few kB must be answered soon. */
function requestSignal(deps: HubDeps): AbortSignal {
  const limit = AbortSignal.timeout(IDLE_TIMEOUT_MS);
  return deps.signal ? AbortSignal.any([deps.signal, limit]) : limit;
}

/** A failure that another attempt may cure: network errors, 408, 429, 5xx. */
export class TransientError extends Error {
  readonly retryAfterMs: number | undefined;
  constructor(message: string, retryAfterMs?: number, cause?: unknown) {
    super(message, { cause });
    this.name = "TransientError";
    this.retryAfterMs = retryAfterMs;
  }
}

/** One request, redirects followed by hand: the token goes to the endpoint's own origin only, hosts are checked. */
export async function hubRequest(url: string, deps: HubDeps, options: RequestOptions = {}): Promise<HubResponse> {
  const endpoint = new URL(deps.endpoint);
  let target = new URL(url);
  const signal = options.signal ?? requestSignal(deps);
  let first: Headers | undefined;
  for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
    checkHost(target, endpoint, deps.allowedHosts);
    const own = target.origin === endpoint.origin;
    const response = await send(target, deps, {
      method: options.method ?? "GET",
      redirect: "manual",
      headers: {
        "user-agent": "preceptor",
        // Compression would change lengths and offsets.
        "accept-encoding": "identity",
        ...options.headers,
        ...(own && deps.token ? { authorization: `Bearer ${deps.token}` } : {}),
      },
      signal,
    });
    // The endpoint may redirect to itself (a renamed repository): the answer with x-linked-etag, or else its last own
    // answer, describes the file.
    if (!first || (own && !first.has("x-linked-etag"))) first = response.headers;
    const location = response.headers.get("location");
    if (response.status < 300 || response.status >= 400 || location === null) {
      if (response.status === 408 || response.status === 429 || response.status >= 500) {
        await response.body?.cancel();
        throw new TransientError(`the hub answered ${response.status}`, retryAfter(response));
      }
      return { response, first };
    }
    await response.body?.cancel();
    const next = new URL(location, target);
    const known = first.has("x-linked-etag") || next.origin !== endpoint.origin;
    if (options.headersOnly && known) return { response, first };
    if (target.protocol === "https:" && next.protocol !== "https:") {
      throw fail("hub_error", `the hub redirects from https to ${next.protocol}//${next.host}, which is not followed`);
    }
    target = next;
  }
  throw fail("hub_error", `the hub redirects more than ${MAX_REDIRECTS} times for ${new URL(url).pathname}`);
}

async function send(url: URL, deps: HubDeps, init: RequestInit): Promise<Response> {
  try {
    return await deps.fetch(url, init);
  } catch (cause) {
    if (deps.signal?.aborted) throw fail("cancelled", "the download was cancelled", { cause });
    throw new TransientError(`${url.host} cannot be reached (${reasonOf(cause)})`, undefined, cause);
  }
}

function checkHost(url: URL, endpoint: URL, allowed: readonly string[] | undefined): void {
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    throw fail("hub_error", `the hub points to a ${url.protocol} address, which is not followed`);
  }
  if (allowed === undefined || url.host === endpoint.host || isAllowedHost(url, allowed)) return;
  throw fail(
    "hub_error",
    `the hub redirects to ${url.host}, which is not among PRECEPTOR_ALLOWED_HOSTS; add it to allow this`,
  );
}

function retryAfter(response: Response): number | undefined {
  const seconds = Number(response.headers.get("retry-after") ?? Number.NaN);
  return Number.isFinite(seconds) && seconds >= 0 ? Math.min(seconds * 1000, MAX_DELAY_MS) : undefined;
}

/** Repeats what fails with a `TransientError`, with growing pauses; then `hub_error`. */
export async function withRetries<T>(what: string, deps: HubDeps, action: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await action();
    } catch (error) {
      if (!(error instanceof TransientError)) throw error;
      if (attempt >= MAX_ATTEMPTS) throw givenUp(what, error);
      await pause(attempt, deps, error.retryAfterMs);
    }
  }
}

export function givenUp(what: string, error: TransientError): PreceptorError {
  return fail("hub_error", `${what}: ${error.message}; tried ${MAX_ATTEMPTS} times. Check the network and try again`, {
    cause: error,
  });
}

/** Doubling pauses with jitter, so that several processes do not knock in step. */
export async function pause(attempt: number, deps: HubDeps, atLeastMs = 0): Promise<void> {
  const grown = Math.min(FIRST_DELAY_MS * 2 ** (attempt - 1), MAX_DELAY_MS) * (0.75 + Math.random() / 2);
  const milliseconds = Math.max(grown, atLeastMs);
  await (deps.sleep?.(milliseconds) ?? wait(milliseconds, undefined, deps.signal ? { signal: deps.signal } : {})).catch(
    (cause: unknown) => {
      throw fail("cancelled", "the download was cancelled", { cause });
    },
  );
}
