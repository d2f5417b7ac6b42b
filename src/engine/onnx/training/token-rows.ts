/** What each token of a call counts in its loss. */
import { fail } from "../../../errors.ts";
import type { LossConfig, TrainingSequence } from "../../engine.ts";

/** The tokens of one sequence that reach the head; arrays run in parallel. */
export interface TokenRows {
  /** Where they stand, ≥ 1. */
  positions: number[];
  targets: number[];
  /** Divided by what the loss is averaged over. */
  weight: number[];
  advantage: number[];
  reference: number[];
  old: number[];
}

/**
 * cross_entropy: −Σ w lp / Σ w over all tokens of the call. The others: the mean over the tokens with weight > 0 of each
 * sequence, then over the sequences that have any. Throws `empty_loss`.
 */
export function normalised(
  sequences: readonly TrainingSequence[],
  { loss, everyToken = false }: LossConfig,
): TokenRows[] {
  const counts = sequences.map(({ weights }) => weights.reduce((n, w) => n + (w > 0 ? 1 : 0), 0));
  const total = sequences.reduce((sum, { weights }) => sum + weights.reduce((s, w) => s + w, 0), 0);
  const filled = counts.filter((count) => count > 0).length;
  if (filled === 0)
    throw fail("empty_loss", "no token has a weight above 0, so there is nothing to learn from", { param: "data" });
  return sequences.map(({ ids, weights, advantages, reference, old }, index) => {
    const share = (w: number): number =>
      loss === "cross_entropy" ? w / total : w > 0 ? 1 / (counts[index]! * filled) : 0;
    const positions = Array.from(ids, (_, position) => position).filter(
      (position) => position > 0 && (everyToken || weights[position]! > 0),
    );
    const column = (values: ArrayLike<number> | undefined): number[] =>
      positions.map((position) => values?.[position] ?? 0);
    return {
      positions,
      targets: positions.map((position) => ids[position]!),
      weight: positions.map((position) => share(weights[position]!)),
      advantage: column(advantages),
      reference: column(reference),
      old: column(old),
    };
  });
}
