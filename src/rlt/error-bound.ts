/**
 * How far a reward may be wrong where log-probs are estimates, each with a bound of its own (a server that reports them at
 * temperature 1 only). Means, minima and maxima move no further than what they are taken of.
 */
import type { Stretch } from "./align.ts";
import { type Estimator, k3 } from "./kl.ts";
import type { Coefficients } from "./reward.ts";

/** By token position: nats that a log-prob may be wrong; null: it is exact. */
export type Bounds = ((token: number) => number) | null;

/** Of the solution's part of the reward, over tokens from…to−1. */
export function solutionBound(
  bounds: Bounds,
  { from, to }: { from: number; to: number },
  { solution }: Coefficients,
): number {
  if (!bounds) return 0;
  return reduced(range(from, to).map(bounds), to - from, solution.mean, solution.min);
}

/**
 * Of the KL's part. `values` (S) as the estimator gave them; k1 of a stretch is a sum of log-probs, k3 is convex in it with its
 * minimum 0 at 0.
 */
export function klBound(
  {
    stretches,
    values,
    tokens,
    estimator,
  }: { stretches: readonly Stretch[]; values: Float64Array; tokens: number; estimator: Estimator },
  differences: Float64Array,
  teacher: Bounds,
  student: Bounds,
  { kl }: Coefficients,
): number {
  const sum = (bounds: Bounds, span: { from: number; to: number }): number =>
    bounds ? range(span.from, span.to).reduce((total, token) => total + bounds(token), 0) : 0;
  const bounds = stretches.map((stretch, i) => {
    const nats = sum(teacher, stretch.teacher) + sum(student, stretch.student);
    if (estimator !== "k3") return nats;
    const ends = k3(Float64Array.of(differences[i]! - nats, differences[i]! + nats));
    const least = Math.abs(differences[i]!) <= nats ? 0 : Math.min(...ends);
    return Math.max(Math.max(...ends) - values[i]!, values[i]! - least);
  });
  return reduced(bounds, tokens, kl.mean, kl.max);
}

/** |mean coefficient| · mean bound + |extreme's coefficient| · greatest bound. */
function reduced(bounds: readonly number[], count: number, mean: number, extreme: number): number {
  const total = bounds.reduce((sum, bound) => sum + bound, 0);
  return Math.abs(mean) * (total / count) + Math.abs(extreme) * Math.max(0, ...bounds);
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);
