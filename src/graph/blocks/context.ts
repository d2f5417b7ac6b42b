import type { ModelConfig } from "../../model/checkpoint.ts";
import type { GraphBuilder } from "../builder.ts";
import type { Value } from "../ir.ts";
import { add, matmulTransposed, rmsNorm } from "../ops/math.ts";
import type { Weights } from "../weights.ts";

/** What every block of one graph needs. */
export interface BlockContext {
  g: GraphBuilder;
  config: ModelConfig;
  weights: Weights;
  /** Low-rank updates as graph inputs beside every projection. */
  lora: boolean;
}

/** `q_proj k_proj v_proj o_proj gate_proj up_proj down_proj` with the part of the layer that holds them. */
export const PROJECTIONS = {
  q_proj: "self_attn",
  k_proj: "self_attn",
  v_proj: "self_attn",
  o_proj: "self_attn",
  gate_proj: "mlp",
  up_proj: "mlp",
  down_proj: "mlp",
} as const;
export type Projection = keyof typeof PROJECTIONS;

/** (out, in) of a projection. */
export function projectionShape(config: ModelConfig, module: Projection): [number, number] {
  const { hiddenSize, intermediateSize, heads, kvHeads, headDim } = config;
  switch (module) {
    case "q_proj":
      return [heads * headDim, hiddenSize];
    case "k_proj":
    case "v_proj":
      return [kvHeads * headDim, hiddenSize];
    case "o_proj":
      return [hiddenSize, heads * headDim];
    case "gate_proj":
    case "up_proj":
      return [intermediateSize, hiddenSize];
    case "down_proj":
      return [hiddenSize, intermediateSize];
  }
}

export const loraInput = (part: "a" | "b", layer: number, module: string): string => `lora_${part}.${layer}.${module}`;

/** (N, in) → (N, out): W·x + b, plus B·(A·x) where the graph takes adapters (LoRA, arXiv 2106.09685; scale folded into B). */
export function project(c: BlockContext, x: Value, layer: number, module: Projection, bias: boolean): Value {
  const base = c.weights.linear(x, `model.layers.${layer}.${PROJECTIONS[module]}.${module}`, bias);
  if (!c.lora) return base;
  const [out, inner] = projectionShape(c.config, module);
  const rank = `rank.${layer}.${module}`;
  const a = c.g.input(loraInput("a", layer, module), "float", [rank, inner]);
  const b = c.g.input(loraInput("b", layer, module), "float", [out, rank]);
  return add(c.g, base, matmulTransposed(c.g, matmulTransposed(c.g, x, a), b));
}

/** RMSNorm by a named weight; gemma stores w − 1. `output` names the result. */
export function norm(c: BlockContext, x: Value, name: string, output?: string): Value {
  const stored = c.weights.float(`${name}.weight`);
  const weight = c.config.gemmaNorms ? add(c.g, stored, c.g.float(1)) : stored;
  return rmsNorm(c.g, x, weight, c.config.rmsNormEps, output);
}
