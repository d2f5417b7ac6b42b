import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import type { ModelConfig } from "../../src/model/checkpoint.ts";
import { type TensorToWrite, writeSafetensors } from "../../src/model/safetensors-write.ts";
import { linearShapes } from "../../src/model/tensors.ts";
import { randomFrom } from "./random.ts";

/** Small enough that the model's output stays finite; what it says does not matter. */
const SCALE = 0.01;

/** A LoRA adapter in PEFT's layout, with random matrices on every linear map of every layer. */
export async function writeRandomAdapter(directory: string, model: ModelConfig, rank: number): Promise<void> {
  await mkdir(directory, { recursive: true });
  const shapes = linearShapes(model);
  const config = { peft_type: "LORA", task_type: "CAUSAL_LM", bias: "none", r: rank, lora_alpha: 2 * rank };
  const json = { ...config, target_modules: Object.keys(shapes) };
  await writeFile(path.join(directory, "adapter_config.json"), JSON.stringify(json));
  const next = randomFrom(1);
  const tensors: TensorToWrite[] = [];
  for (let layer = 0; layer < model.layers; layer++) {
    for (const { path: module, out, in: width } of Object.values(shapes)) {
      const prefix = `base_model.model.model.layers.${layer}.${module}`;
      tensors.push(matrix(`${prefix}.lora_A.weight`, [rank, width], next));
      tensors.push(matrix(`${prefix}.lora_B.weight`, [out, rank], next));
    }
  }
  await writeSafetensors(path.join(directory, "adapter_model.safetensors"), tensors);
}

function matrix(name: string, shape: readonly [number, number], next: () => number): TensorToWrite {
  const floats = Float32Array.from({ length: shape[0] * shape[1] }, () => SCALE * (2 * next() - 1));
  return { name, dtype: "F32", shape, data: new Uint8Array(floats.buffer) };
}
