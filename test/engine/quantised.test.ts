import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { EngineModel, Precision } from "../../src/engine/engine.ts";
import { createOnnxEngine } from "../../src/engine/onnx/engine.ts";
import { openAdapter } from "../../src/model/adapter.ts";
import { openCheckpoint } from "../../src/model/open.ts";
import { farthest, goldenDirectory, readGolden, sampleAll } from "./fixture.ts";

let cacheDir: string;
beforeAll(async () => {
  cacheDir = await mkdtemp(path.join(tmpdir(), "preceptor-quantised-"));
});
afterAll(() => rm(cacheDir, { recursive: true, force: true }));

async function open(name: string, precision: Precision): Promise<EngineModel> {
  const options = { precision, contextLength: 256, threads: 2, device: "cpu" } as const;
  return createOnnxEngine({ cacheDir }).open(await openCheckpoint(goldenDirectory(name)), options);
}

/**
 * Mean distance of log-probs from fp32. Random weights of this size have no redundancy, so 4 bits cost far more than in
 * a trained model; a wrong zero point or block order costs several nats.
 */
describe.each([
  ["q8", "llama", 0.06],
  ["q8", "mistral", 0.06],
  ["q4", "llama", 0.6],
  ["q4", "qwen3", 0.6],
  ["q8_0", "qwen2", 0.06],
  ["q4_0", "llama", 0.9],
] as const)("%s of %s", (precision, name, allowed) => {
  let model: EngineModel;
  beforeAll(async () => {
    model = await open(name, precision);
  });
  afterAll(() => model?.close());

  test("log-probs stay near fp32", async () => {
    const { prompts } = await readGolden(name);
    const sequences = prompts.map(({ ids }) => ({ ids: Int32Array.from(ids) }));
    const results = await model.logprobs({ sequences, temperature: 1 });
    const distances = results.flatMap(({ logprobs }, i) =>
      [...logprobs].map((lp, j) => Math.abs(lp - prompts[i]!["logprobs_T1.0"][j + 1]!)),
    );
    const mean = distances.reduce((a, b) => a + b, 0) / distances.length;
    expect(mean).toBeLessThan(allowed);
    expect(mean).toBeGreaterThan(1e-4);
  });

  test("a sample is the same alone and beside others, and adapters work", async () => {
    const checkpoint = await openCheckpoint(goldenDirectory(name));
    const adapter = await openAdapter(`${goldenDirectory(name)}/adapter`, checkpoint);
    expect(model.capabilities.batch_invariant).toBe(true);
    const promptIds = Int32Array.of(40, 41, 42, 43, 44);
    const alone = await sampleAll(model, { promptIds });
    const [beside, adapted] = await Promise.all([
      sampleAll(model, { promptIds }),
      sampleAll(model, { promptIds, adapter }),
      sampleAll(model, { promptIds: Int32Array.of(7), n: 6 }),
    ]);
    expect(beside).toEqual(alone);
    expect(farthest(adapted![0]!.logprobs, alone[0]!.logprobs)).toBeGreaterThan(0.01);
  });
});

test("a cache directory that cannot be written is an error that says so", async () => {
  const checkpoint = await openCheckpoint(goldenDirectory("qwen2"));
  const options = { precision: "q8", contextLength: 64, threads: 1, device: "cpu" } as const;
  const engine = createOnnxEngine({ cacheDir: path.join(goldenDirectory("qwen2"), "config.json") });
  await expect(engine.open(checkpoint, options)).rejects.toThrow(/cache/);
});
