import type { GraphBuilder } from "../builder.ts";
import { int, type Value } from "../ir.ts";
import { differentiable, withTape } from "../tape.ts";
import { add, fusedMatmul, mul, softmax, sub, sumLast } from "./math.ts";
import { concat, reshape, shapeOf, splitBy } from "./shape.ts";

/** Keys and values that queries look at: each batch entry's own (heads, B, T, D), or (heads, T, D) that all of them share. */
export interface Attended {
  key: Value;
  value: Value;
  shared: boolean;
}

/**
 * softmax(scale · q kᵀ + mask) v over all parts together, as one op: q (heads, B, R, D) → (heads, B, R, D). What is shared is
 * read once: the queries of all batch entries are rows of one product. With a tape the weights (heads, B, R, T) are kept.
 */
export function attend(g: GraphBuilder, q: Value, parts: readonly Attended[], mask: Value, scale: number): Value {
  const { weights, y } = withTape(g, null, () => forward(g, q, parts, mask, scale));
  const inputs = [q, ...parts.flatMap(({ key, value }) => [key, value])];
  differentiable(g, [y], inputs, (dy) => {
    // dS = w (dy vᵀ − Σ dy y): a sum over D stands for the one over all positions (arXiv 2205.14135, appendix B.4).
    const dWeights = parts.map(({ value, shared }) => times(g, dy!, value, { shared, transB: true }));
    const dScores = apart(g, mul(g, weights, sub(g, concat(g, dWeights, 3), sumLast(g, mul(g, dy!, y)))), parts);
    const kept = apart(g, weights, parts);
    const dQuery = (): Value =>
      parts
        .map(({ key, shared }, i) => times(g, dScores[i]!, key, { shared, alpha: scale }))
        .reduce((sum, more) => add(g, sum, more));
    return [
      dQuery,
      ...parts.flatMap(({ shared }, i) => [
        () => overRows(g, dScores[i]!, q, shared, scale),
        () => overRows(g, kept[i]!, dy!, shared, 1),
      ]),
    ];
  });
  return y;
}

function forward(
  g: GraphBuilder,
  q: Value,
  parts: readonly Attended[],
  mask: Value,
  scale: number,
): { weights: Value; y: Value } {
  const scores = parts.map(({ key, shared }) => times(g, q, key, { shared, transB: true, alpha: scale }));
  const weights = softmax(g, add(g, concat(g, scores, 3), mask));
  const mixed = apart(g, weights, parts).map((w, i) => times(g, w, parts[i]!.value, parts[i]!));
  return { weights, y: mixed.reduce((sum, more) => add(g, sum, more)) };
}

/** (heads, B, R, all positions) → one stretch of positions per part. */
function apart(g: GraphBuilder, x: Value, parts: readonly Attended[]): Value[] {
  if (parts.length === 1) return [x];
  const lengths = parts.map(({ key, shared }) => (shared ? shapeOf(g, key, 1, 2) : shapeOf(g, key, 2, 3)));
  return splitBy(g, x, 3, concat(g, lengths, 0), parts.length);
}

/** (heads, B, R, k) × (heads, B, k, n), or × (heads, k, n) for all B together. */
function times(
  g: GraphBuilder,
  a: Value,
  b: Value,
  { shared, ...how }: { shared: boolean; transB?: boolean; alpha?: number },
): Value {
  const options = { transB: how.transB ?? false, alpha: how.alpha ?? 1 };
  if (!shared) return fusedMatmul(g, a, b, options);
  const y = fusedMatmul(g, flat(g, a), b, options); // (heads, B·R, n)
  const width = how.transB ? shapeOf(g, b, 1, 2) : shapeOf(g, b, 2, 3);
  return reshape(g, y, concat(g, [shapeOf(g, a, 0, 3), width], 0));
}

/** aᵀ b over rows: (heads, B, R, k), (heads, B, R, n) → (heads, B, k, n), or (heads, k, n) summed over B where shared. */
function overRows(g: GraphBuilder, a: Value, b: Value, shared: boolean, alpha: number): Value {
  return shared
    ? fusedMatmul(g, flat(g, a), flat(g, b), { transA: true, alpha })
    : fusedMatmul(g, a, b, { transA: true, alpha });
}

/** (heads, B, R, n) → (heads, B·R, n) */
function flat(g: GraphBuilder, x: Value): Value {
  const ends = [
    shapeOf(g, x, 0, 1),
    g.int64s([-1]),
    g.node("Shape", [x], { type: "int64", attributes: { start: int(3) } }),
  ];
  return reshape(g, x, concat(g, ends, 0));
}
