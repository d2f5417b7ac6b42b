import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, expect, test } from "vitest";
import type { OptimStep, Trainable, TrainingModel, TrainingSequence } from "../../../src/engine/engine.ts";
import { createOnnxEngine } from "../../../src/engine/onnx/engine.ts";
import { openAdapter } from "../../../src/model/adapter.ts";
import { openCheckpoint } from "../../../src/model/open.ts";
import { CACHE_DIR, farthest, goldenDirectory, LOGPROB_TOLERANCE } from "../fixture.ts";
import { readTrain, sequencesOf } from "./fixture.ts";

/** Training through the engine's front door: a thread of its own, directories that can be served, state that is taken up again. */

const STEP: OptimStep = { learningRate: 0.01, betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0.01, clip: 1 };
const CE = { loss: "cross_entropy" } as const;
const LORA: Trainable = {
  kind: "lora",
  lora: { rank: 4, alpha: 8, rsLora: true, targets: ["q_proj", "v_proj", "down_proj"], seed: 7 },
};
const name = "llama";
const engine = createOnnxEngine({ cacheDir: CACHE_DIR });
const open: TrainingModel[] = [];
const folders: string[] = [];

afterEach(async () => {
  await Promise.all(open.splice(0).map((model) => model.close()));
  await Promise.all(folders.splice(0).map((folder) => rm(folder, { recursive: true, force: true })));
});

async function train(trainable: Trainable, batchBytes?: number): Promise<TrainingModel> {
  const model = await engine.train(await openCheckpoint(goldenDirectory(name)), {
    trainable,
    threads: 2,
    device: "cpu",
    ...(batchBytes === undefined ? {} : { batchBytes }),
  });
  open.push(model);
  return model;
}

async function scratch(): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), "preceptor-training-"));
  folders.push(folder);
  return folder;
}

async function steps(model: TrainingModel, sequences: TrainingSequence[], count: number): Promise<number[]> {
  const losses: number[] = [];
  for (let i = 0; i < count; i++) {
    losses.push((await model.forwardBackward({ sequences, config: CE })).loss);
    await model.optimStep(STEP);
  }
  return losses;
}

test.each([LORA, { kind: "full" } as const])("what was saved goes on to the bit: $kind", async (trainable) => {
  const sequences = sequencesOf(await readTrain(name));
  const folder = await scratch();
  const whole = await train(trainable);
  const losses = await steps(whole, sequences, 2);
  await whole.save(path.join(folder, "ckpt"), { state: true });
  losses.push(...(await steps(whole, sequences, 2)));
  expect(losses.at(-1)!).toBeLessThan(losses[0]!);
  const resumed = await train(trainable);
  await resumed.restore(path.join(folder, "ckpt"));
  expect(await steps(resumed, sequences, 2)).toEqual(losses.slice(2));
  expect(await resumed.optimStep(STEP)).toMatchObject({ step: 5 });
});

test("a saved adapter is what serving computes with", async () => {
  const sequences = sequencesOf(await readTrain(name));
  const folder = await scratch();
  const model = await train(LORA);
  await steps(model, sequences, 3);
  await model.save(path.join(folder, "adapter"), { state: false });
  expect((await readdir(path.join(folder, "adapter"))).sort()).toEqual([
    "adapter_config.json",
    "adapter_model.safetensors",
  ]);
  const checkpoint = await openCheckpoint(goldenDirectory(name));
  const adapter = await openAdapter(path.join(folder, "adapter"), checkpoint);
  const served = await engine.open(checkpoint, { precision: "fp32", contextLength: 512, threads: 2, device: "cpu" });
  const { logprobs } = await model.forward({ sequences, config: { ...CE, everyToken: true } });
  const results = await served.logprobs({ sequences: sequences.map(({ ids }) => ({ ids })), temperature: 1, adapter });
  for (const [i, result] of results.entries()) {
    expect(farthest(result.logprobs, logprobs[i]!.subarray(1))).toBeLessThan(LOGPROB_TOLERANCE);
  }
  await served.close();
});

test("all parameters, saved, are a checkpoint like any other", async () => {
  const sequences = sequencesOf(await readTrain(name));
  const folder = await scratch();
  const model = await train({ kind: "full" });
  await steps(model, sequences, 2);
  await model.save(path.join(folder, "model"), { state: false });
  const served = await engine.open(await openCheckpoint(path.join(folder, "model")), {
    precision: "fp32",
    contextLength: 512,
    threads: 2,
    device: "cpu",
    transient: true,
  });
  const { logprobs } = await model.forward({ sequences, config: { ...CE, everyToken: true } });
  const results = await served.logprobs({ sequences: sequences.map(({ ids }) => ({ ids })), temperature: 1 });
  for (const [i, result] of results.entries()) {
    expect(farthest(result.logprobs, logprobs[i]!.subarray(1))).toBeLessThan(LOGPROB_TOLERANCE);
  }
  await served.close();
});

test("a call that fails or is cancelled leaves no gradients behind", async () => {
  const sequences = sequencesOf(await readTrain(name));
  const model = await train(LORA, 1);
  await model.forwardBackward({ sequences, config: CE });
  const leaving = new AbortController();
  const many = Array.from({ length: 40 }, () => sequences).flat();
  const under = model.forwardBackward({ sequences: many, config: CE, signal: leaving.signal });
  leaving.abort();
  await expect(under).rejects.toMatchObject({ code: "cancelled" });
  expect((await model.optimStep(STEP)).gradNorm).toBe(0);
  const poisoned = sequences.map((sequence) => ({
    ...sequence,
    advantages: sequence.advantages!.map(() => Number.NaN),
  }));
  await expect(model.forwardBackward({ sequences: poisoned, config: { loss: "grpo" } })).rejects.toMatchObject({
    code: "loss_not_finite",
  });
  expect((await model.optimStep(STEP)).gradNorm).toBe(0);
});

test("nothing is written over, and what belongs to another training is refused", async () => {
  const folder = await scratch();
  const model = await train(LORA);
  await model.save(path.join(folder, "a"), { state: true });
  await expect(model.save(path.join(folder, "a"), { state: true })).rejects.toThrow();
  expect(await readdir(folder)).toEqual(["a"]);
  const other = await train({ ...LORA, lora: { ...LORA.lora, rank: 2 } });
  await expect(other.restore(path.join(folder, "a"))).rejects.toMatchObject({ code: "invalid_checkpoint" });
});
