/** Trained weights as directories that can be served, and what training goes on from. */
import { randomUUID } from "node:crypto";
import { copyFile, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { isDiskFull } from "../../../disk-full.ts";
import { fail } from "../../../errors.ts";
import type { Checkpoint } from "../../../model/checkpoint.ts";
import { companionsOf } from "../../../model/companions.ts";
import { readSafetensorsHeader } from "../../../model/safetensors.ts";
import { type TensorToWrite, writeSafetensors } from "../../../model/safetensors-write.ts";
import { readTensor } from "../../../model/tensor-data.ts";
import { syncDirectory } from "../../../sync-directory.ts";
import type { Trainable } from "../../engine.ts";
import type { Parameter, ParameterSet } from "./parameters.ts";

const ADAPTER_CONFIG = "adapter_config.json";
const ADAPTER_WEIGHTS = "adapter_model.safetensors";
const WEIGHTS = "model.safetensors";
const STATE = "optimizer.safetensors";
const STEP = "trainer_state.json";
const PEFT_PREFIX = "base_model.model.";

export interface TrainedFiles {
  checkpoint: Checkpoint;
  trainable: Trainable;
  parameters: ParameterSet;
}

/**
 * Complete or not at all. `step`: null leaves the optimizer's state out. Errors: `invalid_value` where `directory` exists,
 * `insufficient_storage` (said here, because an error of the system loses its code on the way to another thread).
 */
export async function saveTrained(files: TrainedFiles, directory: string, step: number | null): Promise<void> {
  const target = path.resolve(directory);
  const temporary = `${target}.${randomUUID()}.tmp`;
  await mkdir(temporary, { recursive: true });
  try {
    await (files.trainable.kind === "full" ? writeCheckpoint : writeAdapter)(files, temporary);
    if (step !== null) await writeState(files.parameters.list, step, temporary);
    await syncDirectory(temporary);
    // Onto an existing directory that is not empty it fails.
    await rename(temporary, target);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    if (!isDiskFull(error)) throw error;
    throw fail(
      "insufficient_storage",
      "the disk is full: the weights could not be saved; free some space and try again",
      {
        cause: error,
      },
    );
  }
  await syncDirectory(path.dirname(target));
}

async function writeAdapter({ checkpoint, trainable, parameters }: TrainedFiles, directory: string): Promise<void> {
  const config = path.join(directory, ADAPTER_CONFIG);
  if (trainable.kind === "adapter") {
    await copyFile(path.join(trainable.adapter.directory, ADAPTER_CONFIG), config);
  } else if (trainable.kind === "lora") {
    const { rank, alpha, rsLora, targets } = trainable.lora;
    const peft = {
      peft_type: "LORA",
      task_type: "CAUSAL_LM",
      base_model_name_or_path: checkpoint.directory,
      inference_mode: true,
      r: rank,
      lora_alpha: alpha,
      use_rslora: rsLora,
      lora_dropout: 0,
      bias: "none",
      fan_in_fan_out: false,
      target_modules: [...targets].sort(),
    };
    await writeFile(config, `${JSON.stringify(peft, null, 2)}\n`);
  }
  const tensors = parameters.list.map((parameter) =>
    tensorOf(PEFT_PREFIX + parameter.name, parameter.shape, parameter.values),
  );
  await writeSafetensors(path.join(directory, ADAPTER_WEIGHTS), tensors);
}

async function writeCheckpoint({ checkpoint, parameters }: TrainedFiles, directory: string): Promise<void> {
  for (const name of await companionsOf(checkpoint.directory)) {
    await copyFile(path.join(checkpoint.directory, name), path.join(directory, name));
  }
  const tensors = parameters.list.map(({ name, shape, values }) => tensorOf(name, shape, values));
  await writeSafetensors(path.join(directory, WEIGHTS), tensors);
}

async function writeState(list: readonly Parameter[], step: number, directory: string): Promise<void> {
  const tensors = list.flatMap(({ name, shape, mean, square }) => [
    tensorOf(`mean.${name}`, shape, mean),
    tensorOf(`square.${name}`, shape, square),
  ]);
  await writeSafetensors(path.join(directory, STATE), tensors);
  await writeFile(path.join(directory, STEP), `${JSON.stringify({ step })}\n`);
}

function tensorOf(name: string, shape: readonly number[], values: Float32Array): TensorToWrite {
  return { name, dtype: "F32", shape, data: new Uint8Array(values.buffer, values.byteOffset, values.byteLength) };
}

/**
 * Reads into the parameters; returns the step. Weights saved without a state begin a training of their own: step 0, no means.
 * Errors: `invalid_checkpoint` where it holds something else.
 */
export async function restoreTrained({ trainable, parameters }: TrainedFiles, directory: string): Promise<number> {
  const full = trainable.kind === "full";
  const weights = await reader(path.join(directory, full ? WEIGHTS : ADAPTER_WEIGHTS));
  const names = new Set(await readdir(directory));
  const state = names.has(STATE) ? await reader(path.join(directory, STATE)) : null;
  for (const { name, values, mean, square } of parameters.list) {
    await weights(full ? name : PEFT_PREFIX + name, values);
    if (state) {
      await state(`mean.${name}`, mean);
      await state(`square.${name}`, square);
    } else {
      mean.fill(0);
      square.fill(0);
    }
  }
  if (!state) return 0;
  const { step } = JSON.parse(await readFile(path.join(directory, STEP), "utf8")) as { step: unknown };
  if (!Number.isSafeInteger(step)) throw fail("invalid_checkpoint", `${STEP} names no step`);
  return step as number;
}

async function reader(file: string): Promise<(name: string, into: Float32Array) => Promise<void>> {
  const { tensors } = await readSafetensorsHeader(file, path.basename(file));
  return async (name, into) => {
    const location = tensors.get(name);
    if (!location || location.bytes !== into.byteLength) {
      throw fail(
        "invalid_checkpoint",
        `${path.basename(file)} has no ${name} of ${into.length} numbers; it was saved by another training`,
      );
    }
    into.set(await readTensor(location));
  };
}
