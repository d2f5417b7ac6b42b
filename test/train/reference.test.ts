import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, expect, test } from "vitest";
import type { EngineModel, Trainable, TrainingModel } from "../../src/engine/engine.ts";
import { createOnnxEngine } from "../../src/engine/onnx/engine.ts";
import { openAdapter } from "../../src/model/adapter.ts";
import type { AdapterTarget, Checkpoint } from "../../src/model/checkpoint.ts";
import { openCheckpoint } from "../../src/model/open.ts";
import { readTensor } from "../../src/model/tensor-data.ts";
import { createReference } from "../../src/train/reference.ts";
import { CACHE_DIR, farthest, goldenDirectory } from "../engine/fixture.ts";
import { readTrain, sequencesOf } from "../engine/training/fixture.ts";

const engine = createOnnxEngine({ cacheDir: CACHE_DIR });
const closers: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

const OPTIONS = { precision: "fp32", contextLength: 512, threads: 1, device: "cpu" } as const;
const STEP = { learningRate: 0.02, betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0, clip: 1 } as const;

interface Lab {
  checkpoint: Checkpoint;
  base: EngineModel;
  training: TrainingModel;
  scratch: string;
  step(): Promise<unknown>;
}

async function open(trainable: Trainable): Promise<Lab> {
  const checkpoint = await openCheckpoint(goldenDirectory("llama"));
  const scratch = await mkdtemp(path.join(tmpdir(), "preceptor-reference-"));
  const base = await engine.open(checkpoint, OPTIONS);
  const training = await engine.train(checkpoint, { trainable, threads: 1, device: "cpu" });
  closers.push(
    () => rm(scratch, { recursive: true, force: true }),
    () => base.close(),
    () => training.close(),
  );
  const sequences = sequencesOf(await readTrain("llama"));
  return {
    checkpoint,
    base,
    training,
    scratch,
    async step() {
      await training.forwardBackward({ sequences, config: { loss: "cross_entropy" } });
      await training.optimStep({ ...STEP, betas: [...STEP.betas] });
    },
  };
}

/** scale · B·A, (out, in) */
async function product({ a, b, scale, rank }: AdapterTarget): Promise<Float32Array> {
  const [A, B] = [await readTensor(a), await readTensor(b)];
  const columns = a.shape[1]!;
  const out = new Float32Array(b.shape[0]! * columns);
  for (let r = 0; r < b.shape[0]!; r++) {
    for (let k = 0; k < rank; k++) {
      for (let c = 0; c < columns; c++) out[r * columns + c]! += scale * B[r * rank + k]! * A[k * columns + c]!;
    }
  }
  return out;
}

test("with LoRA a pull mixes the updates, not their factors, and forgets what counts less than a hundredth", async () => {
  const lora = { rank: 3, alpha: 6, rsLora: true, targets: ["q_proj", "down_proj"], seed: 5 };
  const { checkpoint, base, training, scratch, step } = await open({ kind: "lora", lora });
  const reference = createReference({ base: { engine: base, adapter: null }, checkpoint, full: null, scratch }, null);
  expect(await reference.current()).toEqual({ engine: base, adapter: null });
  const policies: Float32Array[] = [];
  for (let pull = 0; pull < 3; pull++) {
    await step();
    const saved = path.join(scratch, `saved-${pull}`);
    await training.save(saved, { state: false });
    policies.push(await product((await openAdapter(saved, checkpoint)).targets[1]!));
    await reference.pull(training, 0.9);
  }
  const { adapter } = await reference.current();
  const target = adapter!.targets[1]!;
  // 0.9 of the last, 0.09 of the one before; 0.009 of the first is dropped.
  expect(target.rank).toBe(6);
  const expected = policies[2]!.map((value, i) => 0.9 * value + 0.09 * policies[1]![i]!);
  expect(farthest(await product(target), expected)).toBeLessThan(1e-6);
  const ids = Int32Array.of(5, 6, 7, 8, 9);
  await expect(base.logprobs({ sequences: [{ ids }], temperature: 1, adapter: adapter! })).resolves.toHaveLength(1);
});

test("with all parameters a pull averages the tensors", async () => {
  const { checkpoint, base, training, scratch, step } = await open({ kind: "full" });
  const full = { engine, options: OPTIONS };
  const reference = createReference({ base: { engine: base, adapter: null }, checkpoint, full, scratch }, null);
  closers.push(() => reference.close());
  await step();
  await reference.pull(training, 0.9);
  const saved = path.join(scratch, "saved");
  await training.save(saved, { state: false });
  const [mixed, policy] = [await openCheckpoint(reference.directory()!), await openCheckpoint(saved)];
  for (const name of ["model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight"]) {
    const [a, b] = [await readTensor(policy.tensors[name]!), await readTensor(checkpoint.tensors[name]!)];
    const expected = a.map((value, i) => 0.9 * value + 0.1 * b[i]!);
    expect(farthest(await readTensor(mixed.tensors[name]!), expected)).toBeLessThan(1e-6);
  }
  expect((await reference.current()).engine).not.toBe(base);
});
