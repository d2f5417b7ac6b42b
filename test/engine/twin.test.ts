import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { distributionsOf, type Opened, openModel, sampleAll } from "./fixture.ts";
import { naiveLogits, softmax } from "./naive.ts";
import { type RandomShape, writeRandomCheckpoint } from "./random-checkpoint.ts";

const SMALL: RandomShape = {
  vocabSize: 97,
  hiddenSize: 32,
  intermediateSize: 48,
  layers: 2,
  heads: 4,
  kvHeads: 4,
  maxPositions: 256,
  tied: false,
  dtype: "F32",
  scale: 0.3,
};

/** Single precision over some 10⁴ operations, against double. */
const TOLERANCE = 2e-4;

describe.each([
  ["as many key heads as heads", SMALL],
  ["one key head", { ...SMALL, kvHeads: 1, tied: true }],
  [
    "a sliding window",
    {
      ...SMALL,
      kvHeads: 2,
      config: { model_type: "mistral", architectures: ["MistralForCausalLM"], sliding_window: 7 },
    },
  ],
])("slow twin: %s", (_, shape) => {
  let directory: string;
  let opened: Opened;
  beforeAll(async () => {
    directory = await mkdtemp(path.join(tmpdir(), "preceptor-twin-"));
    await writeRandomCheckpoint(directory, shape);
    opened = await openModel(directory, 256);
  });
  afterAll(async () => {
    await opened?.model.close();
    await rm(directory, { recursive: true, force: true });
  });

  test("chunked scoring equals the formulas, across the borders of chunks", async () => {
    const ids = Int32Array.from({ length: 150 }, (_, i) => (i * i * 7 + 3) % shape.vocabSize);
    const ours = await distributionsOf(opened.model, { ids, from: 1, to: 150, temperature: 0.7 });
    const expected = await naiveLogits(opened.checkpoint, [...ids]);
    let worst = 0;
    for (let row = 0; row < 149; row++) {
      const p = softmax(expected[row]!.map((l) => l / 0.7));
      for (const [v, value] of p.entries()) {
        worst = Math.max(worst, Math.abs(ours[row * shape.vocabSize + v]! - Math.log(value)));
      }
    }
    expect(worst).toBeLessThan(TOLERANCE);
  });

  test("decoding step by step reports the log-probs that scoring the result gives", async () => {
    const promptIds = Int32Array.from({ length: 70 }, (_, i) => (i * 13 + 5) % shape.vocabSize);
    const samples = await sampleAll(opened.model, { promptIds, n: 3, params: { maxTokens: 80 } });
    const sequences = samples.map(({ ids }) => ({ ids: Int32Array.from([...promptIds, ...ids]), from: 70 }));
    const scored = await opened.model.logprobs({ sequences, temperature: 1 });
    for (const [i, { logprobs }] of samples.entries()) {
      expect(logprobs).toHaveLength(80);
      for (const [j, logprob] of logprobs.entries()) {
        expect(Math.abs(logprob - scored[i]!.logprobs[j]!)).toBeLessThan(TOLERANCE);
      }
    }
  });

  test("the same to the bit alone and beside fifteen others", async () => {
    expect(opened.model.capabilities.batch_invariant).toBe(true);
    const promptOf = (which: number): Int32Array =>
      Int32Array.from({ length: 3 + which * 9 }, (_, i) => (i * 5 + which) % shape.vocabSize);
    const request = { promptIds: promptOf(1), seed: 42, params: { maxTokens: 40 } };
    const alone = await sampleAll(opened.model, request);
    const others = Array.from({ length: 15 }, (_, i) =>
      sampleAll(opened.model, { promptIds: promptOf(i), seed: i, params: { maxTokens: 10 + i * 3, temperature: 0.5 } }),
    );
    const beside = await sampleAll(opened.model, request);
    await Promise.all(others);
    expect(beside).toEqual(alone);
  });
});
