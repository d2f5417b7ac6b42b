import type { TrainingSequence } from "../../../src/engine/engine.ts";
import { adapterLora } from "../../../src/engine/onnx/training/lora.ts";
import { type MemoryPlan, planMemory } from "../../../src/engine/onnx/training/memory.ts";
import { fullParameters, loraParameters } from "../../../src/engine/onnx/training/parameters.ts";
import { createTrainer, type Trainer } from "../../../src/engine/onnx/training/trainer.ts";
import { widenedFeeds } from "../../../src/engine/onnx/training/widened.ts";
import { openAdapter } from "../../../src/model/adapter.ts";
import { openCheckpoint } from "../../../src/model/open.ts";
import { readTensor } from "../../../src/model/tensor-data.ts";
import { goldenDirectory, readGolden } from "../fixture.ts";

export interface TrainGolden {
  batch: number[][];
  weights: number[][];
  advantages: number[];
  beta: number;
  temperature: number;
  lora_logprobs_T1: number[][];
  "ref_logprobs_T0.7": number[][];
  "old_logprobs_T0.7": number[][];
  ppo_clip: number;
  ce_loss: number;
  grpo_loss: number;
  importance_sampling_loss: number;
  ppo_loss: number;
  full_ce_loss: number;
  adamw: {
    lr: number;
    betas: [number, number];
    eps: number;
    weight_decay: number;
    clip: number;
    losses: number[];
    grad_norms: number[];
  };
}

export async function readTrain(name: string): Promise<TrainGolden> {
  return ((await readGolden(name)) as unknown as { train: TrainGolden }).train;
}

/** The stored batch as training takes it. */
export function sequencesOf(golden: TrainGolden): TrainingSequence[] {
  return golden.batch.map((ids, i) => ({
    ids: Int32Array.from(ids),
    weights: Float32Array.from(golden.weights[i]!),
    advantages: new Float32Array(ids.length).fill(golden.advantages[i]!),
    reference: Float32Array.from([0, ...golden["ref_logprobs_T0.7"][i]!]),
    old: Float32Array.from([0, ...golden["old_logprobs_T0.7"][i]!]),
  }));
}

export async function openTrainer(
  name: string,
  how: "lora" | "widened" | "full",
  memory?: MemoryPlan,
): Promise<Trainer> {
  const directory = goldenDirectory(name);
  const checkpoint = await openCheckpoint(directory);
  const { config } = checkpoint;
  const parameters =
    how !== "full"
      ? loraParameters(config, await adapterLora(await openAdapter(`${directory}/adapter`, checkpoint)))
      : fullParameters(checkpoint, await allTensors(checkpoint.tensors));
  const options = { threads: 2, device: "cpu" };
  const widened = how === "widened" ? await widenedFeeds(checkpoint) : null;
  return createTrainer({ checkpoint, parameters, memory: memory ?? planMemory(config), options, widened });
}

async function allTensors(
  tensors: Readonly<Record<string, Parameters<typeof readTensor>[0]>>,
): Promise<Map<string, Float32Array>> {
  const entries = Object.entries(tensors).map(async ([name, at]) => [name, await readTensor(at)] as const);
  return new Map(await Promise.all(entries));
}
