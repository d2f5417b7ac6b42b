/** The matrices that a model multiplies by: what is quantised and packed. Projections that read the same rows are one. */
import type { ModelConfig } from "../model/checkpoint.ts";
import type { ElementType, ExternalData } from "./ir.ts";
import type { Scheme } from "./quantise.ts";

export interface Matrix {
  /** `layers.<l>.qkv`, …, `head` */
  name: string;
  /** Tensors of the checkpoint, stacked by rows. */
  parts: readonly string[];
  /** (out, in) */
  rows: number;
  columns: number;
}

/** A matrix and how its weights are to be kept. */
export interface PlannedMatrix extends Matrix {
  /** Null: fp32. */
  scheme: Scheme | null;
}

/** A matrix as a session reads it from the files that engine/onnx/packed-weights.ts writes. */
export interface PackedMatrix {
  rows: number;
  columns: number;
  /** Null: fp32. */
  scheme: Scheme | null;
  weight: PackedTensor;
  /** Quantised only. */
  scales?: PackedTensor;
  /** Schemes with zero points only. */
  zeros?: PackedTensor;
}

export interface PackedTensor {
  type: ElementType;
  dims: readonly number[];
  data: ExternalData;
}

export type LayerMatrix = "qkv" | "o" | "gate" | "up" | "down";

/** Name of a matrix of a layer. */
export const layerMatrix = (layer: number, kind: LayerMatrix): string => `layers.${layer}.${kind}`;

export function layerMatrices(config: ModelConfig, layer: number): Record<LayerMatrix, Matrix> {
  const { hiddenSize, intermediateSize, heads, kvHeads, headDim } = config;
  const matrix = (kind: LayerMatrix, part: string, projections: string[], rows: number, columns: number): Matrix => ({
    name: layerMatrix(layer, kind),
    parts: projections.map((projection) => `model.layers.${layer}.${part}.${projection}_proj.weight`),
    rows,
    columns,
  });
  return {
    qkv: matrix("qkv", "self_attn", ["q", "k", "v"], (heads + 2 * kvHeads) * headDim, hiddenSize),
    o: matrix("o", "self_attn", ["o"], hiddenSize, heads * headDim),
    // Apart: a product more costs less than taking its result apart again.
    gate: matrix("gate", "mlp", ["gate"], intermediateSize, hiddenSize),
    up: matrix("up", "mlp", ["up"], intermediateSize, hiddenSize),
    down: matrix("down", "mlp", ["down"], hiddenSize, intermediateSize),
  };
}

export function headMatrix({ tiedHead, vocabSize, hiddenSize }: ModelConfig): Matrix {
  const part = tiedHead ? "model.embed_tokens.weight" : "lm_head.weight";
  return { name: "head", parts: [part], rows: vocabSize, columns: hiddenSize };
}

/** All of a model, in the order of use. */
export function matricesOf(config: ModelConfig): Matrix[] {
  const layers = Array.from({ length: config.layers }, (_, layer) => Object.values(layerMatrices(config, layer)));
  return [...layers.flat(), headMatrix(config)];
}
