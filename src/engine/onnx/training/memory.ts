/** What a micro-batch needs, so that it can be made small enough beforehand. */
import { totalmem } from "node:os";
import type { ModelConfig } from "../../../model/checkpoint.ts";
import type { BatchLimits, BatchShape } from "./micro-batch.ts";

/** Of the machine's memory for the values of one micro-batch: weights, caches and other models need the rest. */
const MEMORY_SHARE = 0.2;
/** More rows make no product faster. */
const MAX_ROWS = 4096;
/** Rows that meet the head at a time: enough for its product to run at full speed, little beside a layer's values. */
export const HEAD_ROWS = 256;

const BYTES = Float32Array.BYTES_PER_ELEMENT;

/** What memory is cut into beside what was asked for: measured 0.9 to 1.15 of the counted values (memory.test.ts). */
const SLACK = 1.15;

/** Bytes of values that one layer keeps for its backward pass. */
export function layerBytes(
  { hiddenSize, intermediateSize, heads, kvHeads, headDim }: ModelConfig,
  shape: BatchShape,
): number {
  const projected = (heads + 2 * kvHeads) * headDim;
  // Two norms with what enters them; queries, keys and values; what attention yields, by head and by row; gate and up.
  const perRow = 4 * hiddenSize + projected + 2 * heads * headDim + 2 * intermediateSize;
  return SLACK * BYTES * (shape.rows * perRow + shape.pairs * heads);
}

/** The backward pass of a layer holds gradients beside values: measured 1.6 to 2.5 times these. */
const WORKING_LAYERS = 2.75;

/** Bytes at the peak of one run, beside the weights. */
export function runBytes(config: ModelConfig, shape: BatchShape, recompute: boolean): number {
  const entering = BYTES * shape.rows * 2 * config.hiddenSize;
  const kept = recompute ? config.layers * entering : config.layers * layerBytes(config, shape);
  const working = WORKING_LAYERS * layerBytes(config, shape);
  const head = 3 * BYTES * Math.min(shape.rows, HEAD_ROWS) * config.vocabSize;
  return kept + Math.max(working, head);
}

export type MemoryPlan = BatchLimits;

/** Bytes for the values of one micro-batch. */
export const defaultBudget = (): number => MEMORY_SHARE * totalmem();

/** `budget` in bytes. A batch that does not fit even when recomputed is still run if it is a single sequence. */
export function planMemory(config: ModelConfig, budget = defaultBudget()): MemoryPlan {
  return {
    fits: (shape) => shape.rows <= MAX_ROWS && runBytes(config, shape, true) <= budget,
    recompute: (shape) => runBytes(config, shape, false) > budget,
  };
}
