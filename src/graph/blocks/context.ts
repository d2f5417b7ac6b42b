import type { ModelConfig } from "../../model/checkpoint.ts";
import type { GraphBuilder } from "../builder.ts";
import type { Value } from "../ir.ts";
import { type LayerMatrix, layerMatrices } from "../matrices.ts";
import { add, addRow, matmulTransposed, rmsNorm, skipRmsNorm } from "../ops/math.ts";
import type { Weights } from "../weights.ts";

/** What every block of one graph needs. */
export interface BlockContext {
  g: GraphBuilder;
  config: ModelConfig;
  weights: Weights;
  /** Low-rank updates as graph inputs beside every product, or beside those of these matrices. */
  lora: boolean | ReadonlySet<LayerMatrix>;
}

export const loraInput = (part: "a" | "b", layer: number, kind: LayerMatrix): string => `lora_${part}.${layer}.${kind}`;

/**
 * (N, in) → (N, out): W·x + b, plus B·(A·x) where the graph takes adapters (LoRA, arXiv 2106.09685). W stacks the
 * projections that read the same input, so A stacks theirs and B is block-diagonal; the scale is folded into B.
 */
export function project(c: BlockContext, x: Value, layer: number, kind: LayerMatrix): Value {
  const { g, config, weights } = c;
  const matrix = layerMatrices(config, layer)[kind];
  const product = weights.product(x, matrix);
  const y = hasBias(config, kind) ? addRow(g, product, weights.bias(matrix.parts.map(biasOf))) : product;
  if (!c.lora || (c.lora !== true && !c.lora.has(kind))) return y;
  const rank = `rank.${layer}.${kind}`;
  const a = g.input(loraInput("a", layer, kind), "float", [rank, matrix.columns]);
  const b = g.input(loraInput("b", layer, kind), "float", [matrix.rows, rank]);
  return add(g, y, matmulTransposed(g, matmulTransposed(g, x, a), b));
}

const biasOf = (weight: string): string => weight.replace(/\.weight$/, ".bias");

function hasBias({ qkvBias, oBias, mlpBias }: ModelConfig, kind: LayerMatrix): boolean {
  return kind === "qkv" ? qkvBias : kind === "o" ? oBias : mlpBias;
}

/** The weight of a norm; gemma stores w − 1. */
export function normWeight(c: BlockContext, name: string): Value {
  const stored = c.weights.float(`${name}.weight`);
  return c.config.gemmaNorms ? add(c.g, stored, c.g.float(1)) : stored;
}

/** RMSNorm by a named weight. */
export function norm(c: BlockContext, x: Value, name: string): Value {
  return rmsNorm(c.g, x, normWeight(c, name), c.config.rmsNormEps);
}

/** The residual stream and what the last block adds to it, not yet added. */
export interface Stream {
  residual: Value;
  pending: Value | null;
}

/** Adds what is pending and norms the sum, in one node. `output` names the normed result. */
export function normStream(
  c: BlockContext,
  { residual, pending }: Stream,
  name: string,
  output?: string,
): { normed: Value; residual: Value } {
  const weight = normWeight(c, name);
  if (!pending) return { normed: rmsNorm(c.g, residual, weight, c.config.rmsNormEps, output), residual };
  const [normed, sum] = skipRmsNorm(c.g, residual, pending, weight, c.config.rmsNormEps, output);
  return { normed, residual: sum };
}
