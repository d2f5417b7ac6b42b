import { fail, type PreceptorError } from "../errors.ts";

/** A slot becomes free every few seconds on the slowest machine. */
const RETRY_AFTER_SECONDS = 5;

/** What a request is told that would make a queue longer than it may become. */
export function tooManyWaiting(whose: "client" | "server"): PreceptorError {
  const retry = { retryAfterSeconds: RETRY_AFTER_SECONDS };
  return whose === "client"
    ? fail(
        "queue_full",
        "too many of your requests are waiting for this model; send the next ones as these finish",
        retry,
      )
    : fail("overloaded", "too many requests are waiting for this model; try again shortly", retry);
}
