import { type ErrorCode, fail, PreceptorError } from "../../errors.ts";

/**
 * "unreachable": no answer; "busy": 429 or 503; "failed": 5xx, an error inside a stream, a stream that ends early;
 * "garbage": an answer that cannot be what was asked for; "refused": the server will not have this request (other 4xx).
 */
export type FailureKind = "unreachable" | "busy" | "failed" | "garbage" | "refused";

/** What went wrong with one request to one replica. All but "refused" may go well elsewhere or later. */
export class RemoteFailure extends Error {
  readonly kind: FailureKind;
  readonly status: number | undefined;
  /** How long the server asks to be left alone. */
  readonly retryAfterMs: number | undefined;

  constructor(
    kind: FailureKind,
    message: string,
    details: { status?: number; retryAfterMs?: number | undefined; cause?: unknown } = {},
  ) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = "RemoteFailure";
    this.kind = kind;
    this.status = details.status;
    this.retryAfterMs = details.retryAfterMs;
  }
}

/** It has not this model, or not for us: another replica may. Other refusals are of the request, wherever it goes. */
export function isDenial({ kind, status }: RemoteFailure): boolean {
  return kind === "refused" && (status === 401 || status === 403 || status === 404);
}

/** It said nothing about what it was asked: another time it may. */
export function mayAnswerLater({ kind }: RemoteFailure): boolean {
  return kind === "busy" || kind === "unreachable";
}

export function garbage(message: string, cause?: unknown): RemoteFailure {
  return new RemoteFailure("garbage", message, { cause });
}

const CODES: Readonly<Record<FailureKind, ErrorCode>> = {
  unreachable: "backend_unavailable",
  busy: "overloaded",
  failed: "backend_failed",
  garbage: "backend_failed",
  refused: "backend_refused",
};

/** What a request ends with whose signal is aborted: the reason where that says one (the model was closed), else its caller left. */
export function endedBy(signal: AbortSignal | undefined): PreceptorError {
  if (signal?.reason instanceof PreceptorError) return signal.reason;
  return fail("cancelled", "the caller cancelled this request");
}

/** For the caller, in the server's own words. `where`: `host:port`. */
export function asPreceptorError(failure: RemoteFailure, where: string, param?: string): PreceptorError {
  const seconds = Math.ceil((failure.retryAfterMs ?? 1000) / 1000);
  const waits = failure.kind === "busy" || failure.kind === "unreachable";
  return fail(CODES[failure.kind], `${where}: ${failure.message}`, {
    param,
    cause: failure,
    ...(waits ? { retryAfterSeconds: seconds } : {}),
  });
}
