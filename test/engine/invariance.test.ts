import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Precision } from "../../src/engine/engine.ts";
import { type Opened, openModel, type Sampled, sampleAll } from "./fixture.ts";
import { type RandomShape, writeRandomCheckpoint } from "./random-checkpoint.ts";

/** What api.md promises where `batch_invariant` is true: the same sample to the bit, whatever else is computed. */

const SHAPE: RandomShape = {
  vocabSize: 1009,
  hiddenSize: 96,
  intermediateSize: 160,
  layers: 3,
  heads: 6,
  kvHeads: 2,
  maxPositions: 1024,
  tied: true,
  dtype: "BF16",
  scale: 0.25,
};

const promptOf = (length: number, which: number): Int32Array =>
  Int32Array.from({ length }, (_, i) => (i * i * 31 + which * 7919 + 3) % SHAPE.vocabSize);

describe.each([
  ["fp32", "grouped heads", SHAPE],
  ["fp32", "as many key heads as heads", { ...SHAPE, kvHeads: 6, tied: false }],
  ["fp32", "one key head", { ...SHAPE, kvHeads: 1 }],
  ["q8_0", "grouped heads", SHAPE],
  ["q4_0", "grouped heads", SHAPE],
  ["q8", "grouped heads", SHAPE],
  ["q4", "as many key heads as heads", { ...SHAPE, kvHeads: 6 }],
] satisfies [Precision, string, RandomShape][])("%s, %s", (precision, _, shape) => {
  let directory: string;
  let opened: Opened;
  beforeAll(async () => {
    directory = await mkdtemp(path.join(tmpdir(), "preceptor-invariance-"));
    await writeRandomCheckpoint(directory, shape);
    opened = await openModel(directory, 1024, precision);
  });
  afterAll(async () => {
    await opened?.model.close();
    await rm(directory, { recursive: true, force: true });
  });

  const sample = async (length: number, which: number, n = 1, maxTokens = 90): Promise<Sampled[]> =>
    sampleAll(opened.model, {
      promptIds: promptOf(length, which),
      n,
      seed: 7,
      params: { maxTokens, temperature: 0.7 },
    });

  test("the self-test finds it so", () => {
    expect(opened.model.capabilities.batch_invariant).toBe(true);
  });

  test.each([1, 5, 63, 64, 65, 200])(
    "a prompt of %i: alone, as one of 2 and of 64, beside others, known or not",
    async (length) => {
      const [alone] = await sample(length, length);
      const [again, second] = await sample(length, length, 2);
      expect(again).toEqual(alone);
      const group = await sample(length, length, 64, 90);
      expect(group[0]).toEqual(alone);
      expect(group[1]).toEqual(second);
      const others = Array.from({ length: 9 }, (_, i) => sample(20 + 37 * i, 1000 + i, 1 + (i % 3), 20 + 9 * i));
      const [beside] = await sample(length, length);
      await Promise.all(others);
      expect(beside).toEqual(alone);
    },
  );

  test("after a restart, with no prefix known", async () => {
    const before = await sample(150, 42, 3);
    await opened.model.close();
    opened = await openModel(directory, 1024, precision);
    expect(await sample(150, 42, 3)).toEqual(before);
  });

  test("with a prefix that another prompt left in the cache", async () => {
    const shared = promptOf(160, 77);
    const [fresh] = await sampleAll(opened.model, { promptIds: shared, params: { maxTokens: 40 } });
    const longer = Int32Array.from([...shared, ...promptOf(50, 78)]);
    let cached = 0;
    const run = (promptIds: Int32Array) =>
      sampleAll(opened.model, { promptIds, params: { maxTokens: 40 } }, (event) => {
        if (event.type === "prompt") cached = event.cachedTokens;
      });
    const [known] = await run(longer);
    expect(cached).toBe(160);
    const [repeated] = await run(shared);
    expect(cached).toBe(144);
    expect(repeated).toEqual(fresh);
    await opened.model.close();
    opened = await openModel(directory, 1024, precision);
    expect((await run(longer))[0]).toEqual(known);
    expect(cached).toBe(0);
  });

  test("however a long prompt is cut: in long runs alone, in short ones beside a stream", async () => {
    const [alone] = await sample(700, 5, 1, 20);
    await opened.model.close();
    opened = await openModel(directory, 1024, precision);
    const stream = sample(10, 6, 1, 400);
    const [beside] = await sample(700, 5, 1, 20);
    await stream;
    expect(beside).toEqual(alone);
  });
});
