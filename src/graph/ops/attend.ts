import type { GraphBuilder } from "../builder.ts";
import type { Value } from "../ir.ts";
import { differentiable, withTape } from "../tape.ts";
import { add, fusedMatmul, mul, softmax, sub, sumLast } from "./math.ts";

/**
 * softmax(scale · q kᵀ + mask) v as one op: q (heads, B, R, D), keys and values (heads, B, T, D) → (heads, B, R, D). With a
 * tape the weights (heads, B, R, T) are kept.
 */
export function attend(g: GraphBuilder, q: Value, key: Value, value: Value, mask: Value, scale: number): Value {
  const { weights, y } = withTape(g, null, () => {
    const w = softmax(g, add(g, fusedMatmul(g, q, key, { transB: true, alpha: scale }), mask));
    return { weights: w, y: fusedMatmul(g, w, value, {}) };
  });
  differentiable(g, [y], [q, key, value], (dy) => {
    // dS = w (dy vᵀ − Σ dy y): a sum over D stands for the one over all positions (arXiv 2205.14135, appendix B.4).
    const dWeights = fusedMatmul(g, dy!, value, { transB: true });
    const dScores = mul(g, weights, sub(g, dWeights, sumLast(g, mul(g, dy!, y))));
    return [
      () => fusedMatmul(g, dScores, key, { alpha: scale }),
      () => fusedMatmul(g, dScores, q, { transA: true, alpha: scale }),
      () => fusedMatmul(g, weights, dy!, { transA: true }),
    ];
  });
  return y;
}
