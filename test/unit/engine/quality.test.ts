import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { EngineModel, Precision } from "../../../src/engine/engine.ts";
import { createOnnxEngine } from "../../../src/engine/onnx/engine.ts";
import { compareReadings, type Reading, readText } from "../../../src/engine/quality.ts";
import { openCheckpoint } from "../../../src/model/open.ts";

const IDS = Int32Array.from({ length: 40 }, (_, i) => (i * 37 + 5) % 480);

let cacheDir = "";
let exact: EngineModel;
let rough: EngineModel;
beforeAll(async () => {
  cacheDir = await mkdtemp(path.join(tmpdir(), "preceptor-quality-"));
  const checkpoint = await openCheckpoint(fileURLToPath(new URL("../../golden/models/llama", import.meta.url)));
  const engine = createOnnxEngine({ cacheDir });
  const open = (precision: Precision): Promise<EngineModel> =>
    engine.open(checkpoint, { precision, contextLength: 64, threads: 1, device: "cpu" });
  exact = await open("fp32");
  rough = await open("q4");
});
afterAll(async () => {
  await Promise.all([exact?.close(), rough?.close()]);
  await rm(cacheDir, { recursive: true, force: true });
});

/** The slow twin: from whole distributions. */
async function naiveReading(model: EngineModel): Promise<Reading> {
  const logprobs: number[] = [];
  const bestIds: number[] = [];
  for await (const chunk of model.distributions({ ids: IDS, from: 1, to: IDS.length, temperature: 1 })) {
    for (let at = 0; at < chunk.length; at += model.vocabSize) {
      const row = chunk.subarray(at, at + model.vocabSize);
      logprobs.push(row[IDS[logprobs.length + 1]!]!);
      bestIds.push(row.indexOf(Math.max(...row)));
    }
  }
  return { logprobs: Float32Array.from(logprobs), bestIds: Int32Array.from(bestIds) };
}

test("what 4 bits cost a model is what its whole distributions say", async () => {
  const found = compareReadings(await readText(rough, IDS), await readText(exact, IDS));
  const [theirs, reference] = [await naiveReading(rough), await naiveReading(exact)];
  const differences = [...theirs.logprobs].map((logprob, i) => logprob - reference.logprobs[i]!);
  const mean = (values: number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
  expect(found.meanAbsolute).toBeCloseTo(mean(differences.map(Math.abs)), 4);
  expect(found.mean).toBeCloseTo(mean(differences), 4);
  expect(found.sameBest).toBe(mean([...theirs.bestIds].map((id, i) => (id === reference.bestIds[i] ? 1 : 0))));
  expect(found.meanAbsolute).toBeGreaterThan(0.01);
  expect(found.sameBest).toBeLessThan(1);
});

test("a reading differs from itself in nothing, and not from that of another text", async () => {
  const reading = await readText(exact, IDS);
  expect(compareReadings(reading, reading)).toEqual({ meanAbsolute: 0, mean: 0, sameBest: 1 });
  const other = await readText(exact, IDS.subarray(0, 20));
  expect(() => compareReadings(other, reading)).toThrow("different texts");
});

test("means by hand", () => {
  const reference = { logprobs: Float32Array.of(-1, -2, -4, -8), bestIds: Int32Array.of(1, 2, 3, 4) };
  const reading = { logprobs: Float32Array.of(-1.5, -1, -4, -9), bestIds: Int32Array.of(1, 9, 3, 9) };
  expect(compareReadings(reading, reference)).toEqual({ meanAbsolute: 0.625, mean: -0.125, sameBest: 0.5 });
});
