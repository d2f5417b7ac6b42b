/** LoRA matrices to begin training with: drawn from a seed, or an adapter's. */
import type { AdapterFiles, ModelConfig } from "../../../model/checkpoint.ts";
import { readTensor } from "../../../model/tensor-data.ts";
import { linearShapes } from "../../../model/tensors.ts";
import type { LoraOptions } from "../../engine.ts";
import { type LoraUpdates, loraKey } from "../lora-feeds.ts";
import { uniform } from "../rng.ts";

/** A is uniform in ±1/√in (PEFT's Kaiming with a = √5), B is zero: at first the adapter changes nothing. */
export function initialLora(config: ModelConfig, { rank, alpha, targets, rsLora, seed }: LoraOptions): LoraUpdates {
  const updates: LoraUpdates = new Map();
  const scale = rsLora ? alpha / Math.sqrt(rank) : alpha / rank;
  let stream = 0;
  for (let layer = 0; layer < config.layers; layer++) {
    for (const [module, { out, in: columns }] of Object.entries(linearShapes(config))) {
      stream++;
      if (!targets.includes(module)) continue;
      const bound = 1 / Math.sqrt(columns);
      const a = Float32Array.from({ length: rank * columns }, (_, i) => bound * (2 * uniform(seed, stream, i) - 1));
      updates.set(loraKey(layer, module), { rank, scale, a, b: new Float32Array(out * rank) });
    }
  }
  return updates;
}

export async function adapterLora({ targets }: AdapterFiles): Promise<LoraUpdates> {
  const updates: LoraUpdates = new Map();
  for (const { layer, module, rank, scale, a, b } of targets) {
    updates.set(loraKey(layer, module), { rank, scale, a: await readTensor(a), b: await readTensor(b) });
  }
  return updates;
}
