import { fail, PreceptorError } from "../errors.ts";

export function asEngineError(error: unknown): PreceptorError {
  if (error instanceof PreceptorError) return error;
  return fail("engine_failed", "the computation failed unexpectedly; send the request again", { cause: error });
}
