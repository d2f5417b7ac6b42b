/** Frozen half-precision weights, held in float where that is affordable. */
import { matricesOf } from "../../../graph/matrices.ts";
import type { Checkpoint } from "../../../model/checkpoint.ts";
import { readTensor } from "../../../model/tensor-data.ts";
import { type Tensor, tensor } from "../runtime.ts";

/**
 * Of the memory for a micro-batch. Widening on every use takes longer than it looks, since one thread does it: a sixth of
 * a step on one sequence of 256 tokens.
 */
const SHARE = 0.25;

/** Bytes of all weights in float. */
export function widenedBytes({ parameters }: Checkpoint): number {
  return parameters * Float32Array.BYTES_PER_ELEMENT;
}

/** Whether there is something to widen and it takes little of `budget` bytes. Other devices would copy it on every run. */
export function wantsWidened(checkpoint: Checkpoint, budget: number, device: string): boolean {
  const halves = Object.values(checkpoint.tensors).some(({ dtype }) => dtype !== "F32");
  return device === "cpu" && halves && widenedBytes(checkpoint) <= SHARE * budget;
}

/** Inputs of a training graph with `widened`. */
export async function widenedFeeds(checkpoint: Checkpoint): Promise<Record<string, Tensor>> {
  const feeds: Record<string, Tensor> = {};
  const left = new Set(Object.keys(checkpoint.tensors));
  for (const { name, parts, rows, columns } of matricesOf(checkpoint.config)) {
    if (parts.length === 1) continue;
    const stacked = new Float32Array(rows * columns);
    let at = 0;
    for (const part of parts) {
      const values = await readTensor(checkpoint.tensors[part]!);
      stacked.set(values, at);
      at += values.length;
      left.delete(part);
    }
    feeds[name] = tensor("float32", [rows, columns], stacked);
  }
  for (const name of left) {
    const location = checkpoint.tensors[name]!;
    feeds[name] = tensor("float32", location.shape, await readTensor(location));
  }
  return feeds;
}
