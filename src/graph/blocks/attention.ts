import type { Value } from "../ir.ts";
import { add, matmul, matmulTransposed, rotary, softmax } from "../ops/math.ts";
import { concat, dropEnd, padEnd, reshape, shapeOf, splitInTwo, transpose } from "../ops/shape.ts";
import { type BlockContext, norm, project } from "./context.ts";

/** What attention reads besides its input. B sequences, S new tokens each, P cached positions (padded, masked). */
export interface AttentionInputs {
  /** int64 (B, S): rows of the rotary tables. */
  positions: Value;
  /** (B·S, D/2) */
  cos: Value;
  sin: Value;
  /** (B, 1, R, 1, P + S), 0 or a large negative number; R = queryRows(S). */
  mask: Value;
  /** (B, kvHeads, P, D) */
  pastKey: Value;
  pastValue: Value;
}

export interface AttentionOutputs {
  /** (B·S, hidden) */
  hidden: Value;
  /** (B, kvHeads, S, D) */
  key: Value;
  value: Value;
}

/** Query rows per sequence that the mask must cover. */
export function queryRows(config: { heads: number; kvHeads: number }, length: number): number {
  return length + paddingRows(config);
}

/**
 * Without grouped heads a decode step would multiply single rows, and a batched product of one row is summed in another
 * order than one of two (engine.md 2.7). A zero row keeps a sample the same to the bit alone and beside others.
 */
function paddingRows({ heads, kvHeads }: { heads: number; kvHeads: number }): number {
  return heads === kvHeads ? 1 : 0;
}

/**
 * Grouped-query attention (arXiv 2305.13245) over cached and new positions. The cache is read where it lies: scores
 * against it and against the new keys are computed apart and meet in one softmax. The G query heads of a key head
 * become rows of one product.
 */
export function attention(c: BlockContext, x: Value, layer: number, io: AttentionInputs): AttentionOutputs {
  const { g, config } = c;
  const { heads, kvHeads, headDim } = config;
  const group = heads / kvHeads;
  const padding = paddingRows(config);
  const batch = shapeOf(g, io.positions, 0, 2); // (B, S)
  const rows = (...sizes: number[]): Value => concat(g, [batch, g.int64s(sizes)], 0);

  const rotated = (module: "q_proj" | "k_proj", count: number): Value => {
    let y = project(c, x, layer, module, config.qkvBias);
    if (config.qkNorm) {
      const name = `model.layers.${layer}.self_attn.${module === "q_proj" ? "q_norm" : "k_norm"}`;
      y = norm(c, reshape(g, y, [-1, headDim]), name);
    }
    return rotary(g, reshape(g, y, rows(count * headDim)), io.positions, io.cos, io.sin, count);
  };

  let query = transpose(g, reshape(g, rotated("q_proj", heads), rows(kvHeads, group, headDim)), [0, 2, 1, 3, 4]);
  if (padding > 0) query = padEnd(g, query, 5, 2, padding);
  query = reshape(g, query, [0, 0, -1, headDim]); // (B, kvHeads, R·G, D)
  const key = keysAndValues(rotated("k_proj", kvHeads), "new_k");
  const value = keysAndValues(project(c, x, layer, "v_proj", config.qkvBias), "new_v");

  function keysAndValues(y: Value, name: string): Value {
    const split = reshape(g, y, rows(kvHeads, headDim)); // (B, S, kvHeads, D)
    return transpose(g, split, [0, 2, 1, 3], `${name}.${layer}`);
  }

  const scale = config.attentionScale;
  const scores = concat(g, [matmulTransposed(g, query, io.pastKey, scale), matmulTransposed(g, query, key, scale)], 3); // (B, kvHeads, R·G, P + S)
  const total = shapeOf(g, io.mask, 4, 5);
  const perGroup = concat(g, [shapeOf(g, io.mask, 0, 1), g.int64s([kvHeads, -1, group]), total], 0);
  const masked = add(g, reshape(g, scores, perGroup), io.mask); // (B, kvHeads, R, G, P + S)
  const probabilities = reshape(g, softmax(g, masked), concat(g, [g.int64s([0, 0, -1]), total], 0));
  const sizes = concat(g, [shapeOf(g, io.pastKey, 2, 3), shapeOf(g, io.positions, 1, 2)], 0);
  const [overPast, overNew] = splitInTwo(g, probabilities, sizes, 3);
  let mixed = add(g, matmul(g, overPast, io.pastValue), matmul(g, overNew, value)); // (B, kvHeads, R·G, D)
  mixed = reshape(g, mixed, [0, 0, -1, group, headDim]);
  if (padding > 0) mixed = dropEnd(g, mixed, 2, padding);
  mixed = reshape(g, transpose(g, mixed, [0, 2, 1, 3, 4]), [-1, heads * headDim]); // (B·S, heads·D)
  return { hidden: project(c, mixed, layer, "o_proj", config.oBias), key, value };
}
