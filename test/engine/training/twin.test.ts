import { afterEach, describe, expect, test } from "vitest";
import type { TrainingSequence } from "../../../src/engine/engine.ts";
import { createRopeTable } from "../../../src/engine/onnx/rope.ts";
import type { MemoryPlan } from "../../../src/engine/onnx/training/memory.ts";
import type { Trainer } from "../../../src/engine/onnx/training/trainer.ts";
import { farthest } from "../fixture.ts";
import { openTrainer, readTrain, sequencesOf } from "./fixture.ts";

/** The fast forms against the slow one: each sequence by itself, nothing shared, everything kept. */

const plan = (how: Partial<MemoryPlan>): MemoryPlan => ({ fits: () => true, recompute: () => false, ...how });
const CE = { loss: "cross_entropy" } as const;
/** Of a tensor's largest entry: sums in another order. */
const TOLERANCE = 2e-5;

const trainers: Trainer[] = [];
afterEach(() => {
  for (const trainer of trainers.splice(0)) trainer.dispose();
});
async function open(how: "lora" | "widened" | "full", memory: MemoryPlan, name = "qwen3"): Promise<Trainer> {
  const trainer = await openTrainer(name, how, memory);
  trainers.push(trainer);
  return trainer;
}

function copied(trainer: Trainer): Float32Array[] {
  return trainer.parameters.list.map(({ gradient }) => gradient.slice());
}

function worst(actual: readonly Float32Array[], expected: readonly Float32Array[]): number {
  return Math.max(
    ...actual.map((gradient, i) => {
      const largest = expected[i]!.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      return farthest(gradient, expected[i]!) / (largest || 1);
    }),
  );
}

/** One call per sequence, added up as the mean over all of them would be. */
async function oneByOne(
  trainer: Trainer,
  sequences: readonly TrainingSequence[],
): Promise<{ loss: number; gradients: Float32Array[] }> {
  const weightOf = ({ weights }: TrainingSequence): number => weights.reduce((sum, w) => sum + w, 0);
  const all = sequences.reduce((sum, sequence) => sum + weightOf(sequence), 0);
  const sums = trainer.parameters.list.map(({ gradient }) => new Float32Array(gradient.length));
  let loss = 0;
  for (const sequence of sequences) {
    for (const { gradient } of trainer.parameters.list) gradient.fill(0);
    const share = weightOf(sequence) / all;
    loss += share * (await trainer.forwardBackward([sequence], CE)).loss;
    for (const [i, { gradient }] of trainer.parameters.list.entries()) {
      for (let k = 0; k < gradient.length; k++) sums[i]![k]! += share * gradient[k]!;
    }
  }
  return { loss, gradients: sums };
}

/** Five continuations of one beginning, of different lengths, and two texts that share nothing with them. */
async function group(): Promise<TrainingSequence[]> {
  const [long, short] = sequencesOf(await readTrain("qwen3"));
  const beginning = long!.ids.subarray(0, 48);
  const samples = [5, 17, 9, 30, 1].map((length, i) => {
    const own = long!.ids.subarray(50 + 20 * i, 50 + 20 * i + length);
    const ids = Int32Array.from([...beginning, 3 + i, ...own]);
    return { ids, weights: Float32Array.from(ids, (_, t) => (t > 40 ? 1 : 0)) };
  });
  return [...samples.slice(0, 2), short!, ...samples.slice(2), { ...long!, ids: long!.ids.toReversed() }];
}

describe.each(["lora", "widened", "full"] as const)("%s", (how) => {
  test("a group with its prompt computed once equals its sequences one by one", async () => {
    const sequences = await group();
    const together = await open(how, plan({}));
    const { loss } = await together.forwardBackward(sequences, CE);
    const expected = await oneByOne(await open(how, plan({})), sequences);
    expect(Math.abs(loss - expected.loss)).toBeLessThan(1e-5);
    expect(worst(copied(together), expected.gradients)).toBeLessThan(TOLERANCE);
  });

  test("the result does not depend on how the sequences are cut into runs", async () => {
    const sequences = await group();
    const whole = await open(how, plan({}));
    const cut = await open(how, plan({ fits: ({ rows }) => rows < 100 }));
    expect((await cut.forwardBackward(sequences, CE)).loss).toBeCloseTo(
      (await whole.forwardBackward(sequences, CE)).loss,
      5,
    );
    expect(worst(copied(cut), copied(whole))).toBeLessThan(TOLERANCE);
  });

  test("layers computed again give the same gradients", async () => {
    const sequences = await group();
    const kept = await open(how, plan({}));
    const again = await open(how, plan({ recompute: () => true }));
    expect((await again.forwardBackward(sequences, CE)).loss).toBeCloseTo(
      (await kept.forwardBackward(sequences, CE)).loss,
      5,
    );
    expect(worst(copied(again), copied(kept))).toBeLessThan(TOLERANCE);
  });
});

test("windows are masked behind a shared prompt too", async () => {
  const sequences = await group();
  const together = await open("lora", plan({}), "gemma3");
  const { loss } = await together.forwardBackward(sequences, CE);
  const expected = await oneByOne(await open("lora", plan({}), "gemma3"), sequences);
  expect(Math.abs(loss - expected.loss)).toBeLessThan(1e-5);
  expect(worst(copied(together), expected.gradients)).toBeLessThan(TOLERANCE);
});

test("a micro-batch may have more rows than the rotary tables", async () => {
  const [long] = sequencesOf(await readTrain("qwen3"));
  const sequences = Array.from({ length: 24 }, (_, i) => {
    const ids = Int32Array.from([...long!.ids.subarray(0, 40), 3 + i, ...long!.ids.subarray(50, 97)]);
    return { ids, weights: Float32Array.from(ids, (__, t) => (t >= 40 ? 1 : 0)) };
  });
  const rows: number[] = [];
  const together = await open("lora", plan({ fits: (shape) => rows.push(shape.rows) > 0 }));
  const { loss } = await together.forwardBackward(sequences, CE);
  expect(Math.max(...rows)).toBeGreaterThan(createRopeTable({ inverseFrequencies: new Float32Array(8) }).upTo(88).rows);
  const cut = await open("lora", plan({ fits: ({ rows: count }) => count < 500 }));
  expect(loss).toBeCloseTo((await cut.forwardBackward(sequences, CE)).loss, 5);
  expect(worst(copied(together), copied(cut))).toBeLessThan(TOLERANCE);
});

test("gradients add up over calls until a step uses them", async () => {
  const sequences = await group();
  const twice = await open("lora", plan({}));
  const once = await open("lora", plan({}));
  await twice.forwardBackward(sequences, CE);
  await twice.forwardBackward(sequences, CE);
  await once.forwardBackward(sequences, CE);
  const doubled = copied(once).map((gradient) => gradient.map((value) => 2 * value));
  expect(worst(copied(twice), doubled)).toBeLessThan(1e-6);
  twice.optimStep({ learningRate: 0, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, clip: null });
  expect(copied(twice).every((gradient) => gradient.every((value) => value === 0))).toBe(true);
});

test("the same call gives the same bits", async () => {
  const sequences = await group();
  const [a, b] = [await open("full", plan({})), await open("full", plan({}))];
  await a.forwardBackward(sequences, CE);
  await b.forwardBackward(sequences, CE);
  expect(copied(a).every((gradient, i) => Buffer.from(gradient.buffer).equals(Buffer.from(copied(b)[i]!.buffer)))).toBe(
    true,
  );
});

test("nothing to learn from is said", async () => {
  const trainer = await open("lora", plan({}));
  const silent = (await group()).map(({ ids }) => ({ ids, weights: new Float32Array(ids.length) }));
  await expect(trainer.forwardBackward(silent, CE)).rejects.toThrow(/nothing to learn from/);
});
