/** LoRA matrices as graphs take them: stacked like the matrices they update, the scale folded into B. */
import { fail } from "../../errors.ts";
import { loraInput } from "../../graph/blocks/context.ts";
import { type LayerMatrix, layerMatrices, type Matrix } from "../../graph/matrices.ts";
import type { ModelConfig } from "../../model/checkpoint.ts";
import { type Tensor, tensor } from "./runtime.ts";

export interface LoraUpdate {
  rank: number;
  /** Multiplies B·A. */
  scale: number;
  /** (rank, in) */
  a: Float32Array;
  /** (out, rank) */
  b: Float32Array;
}

/** By `loraKey`. */
export type LoraUpdates = Map<string, LoraUpdate>;

export const loraKey = (layer: number, module: string): string => `model.layers.${layer}.${module}`;

/** Where the update of one projection lies in the stack that its graph input holds. */
export interface LoraPart {
  key: string;
  /** First of its rows of B, and how many. */
  row: number;
  rows: number;
  /** First of its rows of A, which are its columns of B, and how many. */
  column: number;
  rank: number;
}

export interface LoraStack {
  layer: number;
  kind: LayerMatrix;
  matrix: Matrix;
  parts: LoraPart[];
  /** Of all parts together. */
  rank: number;
}

/** The stacks of all layers, in the order of use. Throws `invalid_adapter` where an update belongs to nothing. */
export function loraStacks(config: ModelConfig, updates: ReadonlyMap<string, { rank: number }>): LoraStack[] {
  const left = new Set(updates.keys());
  const stacks: LoraStack[] = [];
  for (let layer = 0; layer < config.layers; layer++) {
    for (const [kind, matrix] of Object.entries(layerMatrices(config, layer)) as [LayerMatrix, Matrix][]) {
      let row = 0;
      let rank = 0;
      const parts = matrix.parts.map((name): LoraPart => {
        const key = name.replace(/\.(self_attn|mlp)\./, ".").replace(/\.weight$/, "");
        const part = { key, row, rows: rowsOf(config, name), column: rank, rank: updates.get(key)?.rank ?? 0 };
        left.delete(key);
        row += part.rows;
        rank += part.rank;
        return part;
      });
      stacks.push({ layer, kind, matrix, parts, rank });
    }
  }
  const [unknown] = left;
  if (unknown) throw fail("invalid_adapter", `the adapter changes ${unknown}, which this model lacks`);
  return stacks;
}

/** Rows of one part of a stacked matrix. */
function rowsOf({ heads, kvHeads, headDim, hiddenSize, intermediateSize }: ModelConfig, part: string): number {
  if (part.includes("q_proj")) return heads * headDim;
  if (/[kv]_proj/.test(part)) return kvHeads * headDim;
  return /(gate|up)_proj/.test(part) ? intermediateSize : hiddenSize;
}

/** A of all parts one below the other, B block-diagonal: every part sees its own update only. A part without one has rank 0. */
export function loraFeeds(config: ModelConfig, updates: LoraUpdates): Record<string, Tensor> {
  const feeds: Record<string, Tensor> = {};
  for (const { layer, kind, matrix, parts, rank } of loraStacks(config, updates)) {
    const a = new Float32Array(rank * matrix.columns);
    const b = new Float32Array(matrix.rows * rank);
    for (const part of parts) {
      const update = updates.get(part.key);
      if (!update) continue;
      a.set(update.a, part.column * matrix.columns);
      for (let r = 0; r < part.rows; r++) {
        for (let k = 0; k < part.rank; k++) {
          b[(part.row + r) * rank + part.column + k] = update.b[r * part.rank + k]! * update.scale;
        }
      }
    }
    feeds[loraInput("a", layer, kind)] = tensor("float32", [rank, matrix.columns], a);
    feeds[loraInput("b", layer, kind)] = tensor("float32", [matrix.rows, rank], b);
  }
  return feeds;
}
