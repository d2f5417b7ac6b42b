/**
 * Where explanations are drawn in another precision than they are learnt from, the policy gradient is of other draws than it
 * believes. Each token's advantage is weighed by how much likelier the weights that learn make it than those that drew it,
 * truncated: exp(lp_train − lp_sample), at most 2 (truncated importance sampling, as TRL corrects vLLM's draws).
 */
import type { TrainingSequence } from "../engine/engine.ts";
import { mean } from "./run.ts";

/** A token that was drawn against the odds must not outweigh all others. */
export const MAX_RATIO = 2;

/** What was drawn, and where it begins in its sequence. */
export interface Drawn {
  promptIds: { length: number };
  completion: { logprobs: readonly number[] };
}

/** lp_train − lp_sample of each drawn token. `logprobs`: of training, per sequence and token. */
export function mismatches(drawn: readonly Drawn[], logprobs: readonly Float32Array[]): number[][] {
  return drawn.map(({ promptIds, completion }, i) =>
    completion.logprobs.map((sampled, t) => logprobs[i]![promptIds.length + t]! - sampled),
  );
}

export const truncatedRatio = (mismatch: number): number => Math.min(Math.exp(mismatch), MAX_RATIO);

/** The same sequences with weighed advantages. */
export function corrected(
  sequences: readonly TrainingSequence[],
  drawn: readonly Drawn[],
  logprobs: readonly Float32Array[],
): TrainingSequence[] {
  const apart = mismatches(drawn, logprobs);
  return sequences.map((sequence, i) => {
    const advantages = Float32Array.from(sequence.advantages!);
    apart[i]!.forEach((mismatch, t) => {
      advantages[drawn[i]!.promptIds.length + t]! *= truncatedRatio(mismatch);
    });
    return { ...sequence, advantages };
  });
}

/** How far sampling and training are apart at the same weights; TRL's names, and how many tokens were truncated. */
export function mismatchMetrics(drawn: readonly Drawn[], logprobs: readonly Float32Array[]): Record<string, number> {
  const all = mismatches(drawn, logprobs).flat();
  const apart = all.map(Math.abs);
  const ratios = all.map(truncatedRatio);
  return {
    "sampling/sampling_logp_difference/mean": mean(apart),
    "sampling/sampling_logp_difference/max": apart.reduce((most, value) => Math.max(most, value), 0),
    "sampling/importance_sampling_ratio/min": ratios.reduce((least, value) => Math.min(least, value), MAX_RATIO),
    "sampling/importance_sampling_ratio/mean": mean(ratios),
    "sampling/importance_sampling_ratio/max": ratios.reduce((most, value) => Math.max(most, value), 0),
    "sampling/importance_sampling_ratio/truncated": mean(
      all.map((mismatch) => (Math.exp(mismatch) > MAX_RATIO ? 1 : 0)),
    ),
  };
}
