import { fail } from "../../errors.ts";
import type { LogprobsResult } from "../engine.ts";
import type { SequenceMessage } from "./protocol.ts";
import type { ScoreOptions } from "./scorer.ts";
import type { HeadOutput } from "./sessions.ts";

/** Arrays of the right size for what was asked, to be filled chunk by chunk. */
export function emptyResult(
  { from, to, atWidth }: SequenceMessage,
  options: ScoreOptions,
  cachedTokens: number,
): LogprobsResult {
  const count = to - from;
  const { topK } = options;
  return {
    from,
    to,
    cachedTokens,
    logprobs: new Float32Array(count),
    ...(options.entropy ? { entropy: new Float32Array(count) } : {}),
    ...(options.rank ? { rank: new Int32Array(count) } : {}),
    ...(topK > 0 ? { topIds: new Int32Array(count * topK), topLogprobs: new Float32Array(count * topK) } : {}),
    ...(atWidth > 0 ? { at: new Float32Array(count * atWidth) } : {}),
    ...(options.reference ? { kl: new Float32Array(count) } : {}),
  };
}

/** What the head must compute for it. */
export function wantedOutputs({ atWidth }: SequenceMessage, options: ScoreOptions): HeadOutput[] {
  const outputs: HeadOutput[] = ["target"];
  if (options.entropy) outputs.push("entropy");
  if (options.rank) outputs.push("rank");
  if (options.topK > 0) outputs.push("top_logprobs", "top_ids");
  if (atWidth > 0) outputs.push("at_logprobs");
  if (options.reference) outputs.push("kl");
  return outputs;
}

export function mismatchedReference(): Error {
  return fail(
    "invalid_value",
    "the reference distributions do not cover the same positions and vocabulary as the sequence they are compared with",
  );
}

/** A model whose weights or adapter overflow must not answer with numbers that are none. */
export function checkFinite(result: LogprobsResult): void {
  if (result.logprobs.some((value) => Number.isNaN(value))) {
    throw fail("engine_failed", "the model produced values that are not numbers; its weights or adapter overflow");
  }
}
