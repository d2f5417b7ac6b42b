/**
 * The reward (arXiv 2506.08388, section 3; method.md): r = r_SS − λ·r_KL + format penalty, in the form of the reference
 * code, which keeps one coefficient per reduction.
 */
import type { FormatReport } from "./completion.ts";

export interface Coefficients {
  solution: { mean: number; min: number };
  kl: { mean: number; max: number };
}

/** α = 0.01, λ = 3: [1, 0.01] on the solution's [mean, min], [3, 0.03] on the KL's [mean, max]. */
export const DEFAULT_COEFFICIENTS: Coefficients = { solution: { mean: 1, min: 0.01 }, kl: { mean: 3, max: 0.03 } };

/** Both models are scored at the teacher's sampling temperature, the solution tokens too. */
export const DEFAULT_TEMPERATURE = 0.7;

export interface SolutionReward {
  logprob_mean: number;
  logprob_min: number;
  /** mean·c_mean + min·c_min */
  reward: number;
}

export interface KlReward {
  mean: number;
  max: number;
  /** −(mean·c_mean + max·c_max): already negated, so the three parts simply add up. */
  reward: number;
}

/** @param logprobs (N ≥ 1) of the solution's tokens under the student. */
export function solutionReward(logprobs: ArrayLike<number>, coefficients: Coefficients): SolutionReward {
  let total = 0;
  let min = Number.POSITIVE_INFINITY;
  for (let i = 0; i < logprobs.length; i++) {
    const value = logprobs[i] as number;
    total += value;
    if (value < min) min = value;
  }
  return solutionOf(total / logprobs.length, min, coefficients);
}

/** The same from its two figures. */
export const solutionOf = (mean: number, min: number, { solution }: Coefficients): SolutionReward => ({
  logprob_mean: mean,
  logprob_min: min,
  reward: solution.mean * mean + solution.min * min,
});

/**
 * @param values (S ≥ 1) KL per stretch of bytes (per token where both sides have the same tokens).
 * @param tokens number of the student's tokens that the mean is taken over.
 */
export function klReward(values: ArrayLike<number>, tokens: number, coefficients: Coefficients): KlReward {
  let total = 0;
  let max = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < values.length; i++) {
    const value = values[i] as number;
    total += value;
    if (value > max) max = value;
  }
  return klOf(total / tokens, max, coefficients);
}

/** The same from its two figures. */
export const klOf = (mean: number, max: number, { kl }: Coefficients): KlReward => ({
  mean,
  max,
  reward: -(kl.mean * mean + kl.max * max),
});

/** The reference's numbers for an empty explanation: mean = max = 1, which costs 3.03 at the default coefficients. */
export const emptyKl = (coefficients: Coefficients): KlReward => klOf(1, 1, coefficients);

export function totalReward(
  solution: SolutionReward,
  kl: KlReward | null,
  format: Pick<FormatReport, "penalty">,
): number {
  return solution.reward + (kl?.reward ?? 0) + format.penalty;
}
