import { setTimeout as sleep } from "node:timers/promises";
import { type ErrorCode, PreceptorError } from "../errors.ts";

/** A model on its way into memory, an engine that has enough to do, a remote server that does not answer just now. */
const PASSING_CODES = [
  "model_loading",
  "queue_full",
  "overloaded",
  "backend_unavailable",
] as const satisfies ErrorCode[];
const PASSING: ReadonlySet<ErrorCode> = new Set(PASSING_CODES);

export interface PassingError extends PreceptorError {
  readonly code: (typeof PASSING_CODES)[number];
}

/** Where the error names no time. */
const RETRY_AFTER_MS = 5_000;

/** Whether the same request, sent later, may well be done: nothing is wrong with it. */
export function passes(error: unknown): error is PassingError {
  return error instanceof PreceptorError && PASSING.has(error.code);
}

export function pauseMs({ retryAfterSeconds }: PassingError): number {
  return retryAfterSeconds === undefined ? RETRY_AFTER_MS : retryAfterSeconds * 1000;
}

/** Nobody waits for work in the background or for a job, so it comes back as often as it is asked to. */
export async function patiently<T>(attempt: () => Promise<T>, signal: AbortSignal): Promise<T> {
  while (true) {
    try {
      return await attempt();
    } catch (error) {
      if (!passes(error)) throw error;
      await sleep(pauseMs(error), undefined, { signal });
    }
  }
}
