/**
 * The one error type of the program and its catalogue.
 *
 * Errors are data until the edge: code below http/ throws `fail("code", "what happened and what to do next")`;
 * `http/errors.ts` is the only place that turns one into a response. Anything else that is thrown becomes a 500
 * that names the request id and nothing more.
 */

export type ErrorType =
  | "invalid_request_error"
  | "authentication_error"
  | "permission_error"
  | "not_found_error"
  | "conflict_error"
  | "rate_limit_error"
  | "server_error"
  | "unavailable_error";

/** code → [HTTP status, type]. A code is added here before it is thrown anywhere. */
export const CATALOGUE = {
  // 400: the request itself
  invalid_request: [400, "invalid_request_error"],
  invalid_json: [400, "invalid_request_error"],
  invalid_value: [400, "invalid_request_error"],
  unknown_parameter: [400, "invalid_request_error"],
  unsupported_parameter: [400, "invalid_request_error"],
  context_length_exceeded: [400, "invalid_request_error"],
  invalid_token_ids: [400, "invalid_request_error"],
  chat_template_missing: [400, "invalid_request_error"],
  chat_template_failed: [400, "invalid_request_error"],
  estimator_needs_shared_tokenizer: [400, "invalid_request_error"],
  unsupported_by_backend: [400, "invalid_request_error"],
  empty_loss: [400, "invalid_request_error"],
  invalid_dataset: [400, "invalid_request_error"],
  // 400: a model that cannot be registered
  model_source_not_allowed: [400, "invalid_request_error"],
  model_source_not_found: [400, "invalid_request_error"],
  unsupported_architecture: [400, "invalid_request_error"],
  unsupported_checkpoint: [400, "invalid_request_error"],
  invalid_checkpoint: [400, "invalid_request_error"],
  invalid_adapter: [400, "invalid_request_error"],
  invalid_tokenizer: [400, "invalid_request_error"],
  hub_error: [400, "invalid_request_error"],
  tokenizer_mismatch: [400, "invalid_request_error"],
  // 400: what a remote server says to a request or registration
  backend_refused: [400, "invalid_request_error"],
  // the caller
  missing_api_key: [401, "authentication_error"],
  invalid_api_key: [401, "authentication_error"],
  insufficient_scope: [403, "permission_error"],
  origin_not_allowed: [403, "permission_error"],
  not_found: [404, "not_found_error"],
  model_not_found: [404, "not_found_error"],
  session_lost: [404, "not_found_error"],
  method_not_allowed: [405, "invalid_request_error"],
  conflict: [409, "conflict_error"],
  model_exists: [409, "conflict_error"],
  idempotency_key_reused: [409, "conflict_error"],
  idempotency_in_progress: [409, "conflict_error"],
  payload_too_large: [413, "invalid_request_error"],
  unsupported_media_type: [415, "invalid_request_error"],
  range_not_satisfiable: [416, "invalid_request_error"],
  rate_limited: [429, "rate_limit_error"],
  queue_full: [429, "rate_limit_error"],
  too_many_sessions: [429, "rate_limit_error"],
  cancelled: [499, "invalid_request_error"],
  // the server
  internal_error: [500, "server_error"],
  engine_failed: [500, "server_error"],
  loss_not_finite: [500, "server_error"],
  backend_failed: [502, "server_error"],
  interrupted: [500, "server_error"],
  model_loading: [503, "unavailable_error"],
  overloaded: [503, "unavailable_error"],
  backend_unavailable: [503, "unavailable_error"],
  out_of_memory: [503, "unavailable_error"],
  draining: [503, "unavailable_error"],
  database_unavailable: [503, "unavailable_error"],
  data_dir_locked: [503, "unavailable_error"],
  insufficient_storage: [507, "unavailable_error"],
} as const satisfies Record<string, readonly [number, ErrorType]>;

export type ErrorCode = keyof typeof CATALOGUE;

export interface ErrorDetails {
  /** Path of the offending field: `items.0.question`. */
  param?: string | undefined;
  /** Sent as `Retry-After` (seconds). */
  retryAfterSeconds?: number;
  /** Of a file: what is wrong, line by line. */
  lines?: readonly BadLine[] | undefined;
  /** Kept for the log, never sent. */
  cause?: unknown;
}

export interface BadLine {
  /** From 1. */
  line: number;
  reason: string;
}

/** What the API sends under `error`. */
export interface ErrorBody {
  message: string;
  type: ErrorType;
  param: string | null;
  code: ErrorCode;
  /** Of a bad file: its first bad lines. */
  lines?: BadLine[];
}

export class PreceptorError extends Error {
  readonly code: ErrorCode;
  readonly param: string | undefined;
  readonly retryAfterSeconds: number | undefined;
  readonly lines: readonly BadLine[] | undefined;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = "PreceptorError";
    this.code = code;
    this.param = details.param;
    this.retryAfterSeconds = details.retryAfterSeconds;
    this.lines = details.lines;
  }

  get status(): number {
    return CATALOGUE[this.code][0];
  }

  toBody(): ErrorBody {
    return {
      message: this.message,
      type: CATALOGUE[this.code][1],
      param: this.param ?? null,
      code: this.code,
      ...(this.lines === undefined ? {} : { lines: [...this.lines] }),
    };
  }
}

/** `throw fail("invalid_value", "temperature is 3; it must lie between 0 and 2", { param: "temperature" })` */
export function fail(code: ErrorCode, message: string, details: ErrorDetails = {}): PreceptorError {
  return new PreceptorError(code, message, details);
}

/** What the API shows of anything thrown, where it is kept as data: the whole of a known error, `otherwise` of any other. */
export function bodyOf(error: unknown, otherwise: string): ErrorBody {
  return (error instanceof PreceptorError ? error : fail("internal_error", otherwise)).toBody();
}
