import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { SampleRequest } from "../../src/engine/engine.ts";
import { createOnnxEngine } from "../../src/engine/onnx/engine.ts";
import { MAX_CLIENT_SLOTS } from "../../src/engine/onnx/limits.ts";
import type { AdapterFiles } from "../../src/model/checkpoint.ts";
import { openCheckpoint } from "../../src/model/open.ts";
import { eventually, goldenDirectory, type Opened, openModel, sampleAll } from "./fixture.ts";
import { writeRandomCheckpoint } from "./random-checkpoint.ts";

let opened: Opened;
let scratch: string;
const promptIds = Int32Array.of(5, 6, 7, 8);
const LONG = { temperature: 1, topP: 1, topK: 0, maxTokens: 400 };
const request = (rest: Partial<SampleRequest> = {}): SampleRequest => ({
  promptIds,
  n: 1,
  params: LONG,
  seed: 1,
  stopIds: [],
  ...rest,
});

beforeAll(async () => {
  scratch = await mkdtemp(path.join(tmpdir(), "preceptor-life-"));
  opened = await openModel(goldenDirectory("mistral"));
});
afterAll(async () => {
  await opened?.model.close();
  await rm(scratch, { recursive: true, force: true });
});
afterEach(() => eventually(() => opened.model.load().active === 0 && opened.model.load().waiting === 0));

test("an abort between two tokens frees the slots at once and finishes every sequence as cancelled", async () => {
  const { model } = opened;
  const controller = new AbortController();
  let tokens = 0;
  const out = await sampleAll(model, { promptIds, n: 4, params: LONG, signal: controller.signal }, (event) => {
    if (event.type !== "token" || ++tokens !== 20) return;
    expect(model.load().active).toBe(4);
    controller.abort();
  });
  expect(out.map(({ reason }) => reason)).toEqual(["cancelled", "cancelled", "cancelled", "cancelled"]);
  expect(tokens).toBeLessThan(400);
});

test("a request that is aborted before it starts yields only its ends", async () => {
  const out = await sampleAll(opened.model, { promptIds, n: 2, signal: AbortSignal.abort() });
  expect(out.map(({ ids, reason }) => [ids.length, reason])).toEqual([
    [0, "cancelled"],
    [0, "cancelled"],
  ]);
});

test("a reader that leaves frees its slot", async () => {
  for await (const event of opened.model.sample(request())) if (event.type === "token") break;
  await eventually(() => opened.model.load().active === 0);
});

test("a callback that throws ends its own request", async () => {
  const shouldStop = (): boolean => {
    throw new Error("broken callback");
  };
  await expect(sampleAll(opened.model, { promptIds, shouldStop })).rejects.toMatchObject({ code: "engine_failed" });
});

test("memory of finished work is given back", async () => {
  const { model } = opened;
  await eventually(() => model.load().active === 0);
  const before = model.memoryBytes();
  let during = 0;
  await sampleAll(model, { promptIds, n: 8, params: { maxTokens: 60 } }, () => {
    during = Math.max(during, model.memoryBytes());
  });
  expect(during).toBeGreaterThan(before);
  await eventually(() => model.memoryBytes() <= before);
});

test.each([
  ["invalid_token_ids", { promptIds: Int32Array.of(5, 512) }],
  ["invalid_token_ids", { promptIds: Int32Array.of(-1) }],
  ["invalid_value", { promptIds: new Int32Array(0) }],
  ["context_length_exceeded", { promptIds: new Int32Array(512) }],
  ["invalid_value", { n: 0 }],
  ["invalid_value", { seed: -1 }],
  ["invalid_value", { seed: 1.5 }],
  ["invalid_value", { params: { ...LONG, temperature: -1 } }],
  ["invalid_value", { params: { ...LONG, temperature: Number.NaN } }],
  ["invalid_value", { params: { ...LONG, temperature: 1e-9 } }],
  ["invalid_value", { params: { ...LONG, topP: 0 } }],
  ["invalid_value", { params: { ...LONG, topK: -1 } }],
  ["invalid_value", { params: { ...LONG, maxTokens: -1 } }],
  ["invalid_value", { topLogprobs: 513 }],
])("sampling refuses bad input with %s: %j", async (code, wrong) => {
  const run = async (): Promise<void> => {
    for await (const _ of opened.model.sample(request(wrong)));
  };
  await expect(run()).rejects.toMatchObject({ code });
});

test.each([
  ["invalid_token_ids", { ids: Int32Array.of(1, 600) }],
  ["invalid_value", { ids: new Int32Array(0) }],
  ["context_length_exceeded", { ids: new Int32Array(513) }],
  ["invalid_value", { ids: new Int32Array(5), from: 0 }],
  ["invalid_value", { ids: new Int32Array(5), to: 6 }],
  ["invalid_value", { ids: new Int32Array(5), from: 4, to: 3 }],
  ["invalid_value", { ids: new Int32Array(5), at: new Int32Array(3), atWidth: 2 }],
  ["invalid_token_ids", { ids: new Int32Array(2), at: Int32Array.of(-5), atWidth: 1 }],
])("scoring refuses bad input with %s: %j", async (code, sequence) => {
  await expect(opened.model.logprobs({ sequences: [sequence], temperature: 1 })).rejects.toMatchObject({ code });
});

test("both numbers stand in the message about a long prompt", async () => {
  const run = sampleAll(opened.model, { promptIds: new Int32Array(700) });
  await expect(run).rejects.toThrow(/700.*512/);
});

test("an adapter that cannot be read fails its request, not the model", async () => {
  const { model } = opened;
  const tensor = { path: "/nowhere/adapter.safetensors", offset: 0, bytes: 16, dtype: "F32", shape: [1, 4] } as const;
  const adapter: AdapterFiles = {
    directory: "/nowhere",
    hash: "sha256:none",
    targets: [{ layer: 0, module: "q_proj", rank: 1, scale: 1, a: tensor, b: tensor }],
  };
  await expect(sampleAll(model, { promptIds, adapter })).rejects.toMatchObject({ code: "invalid_adapter" });
  const [fine] = await sampleAll(model, { promptIds, params: { maxTokens: 3 } });
  expect(fine!.ids).toHaveLength(3);
});

test("values that are not numbers fail the request that met them; its neighbours go on", async () => {
  const directory = path.join(scratch, "nan");
  const shape = { vocabSize: 64, hiddenSize: 16, intermediateSize: 16, layers: 2, heads: 2, kvHeads: 1 };
  await writeRandomCheckpoint(directory, { ...shape, maxPositions: 64, tied: false, dtype: "F32", scale: 0.3 });
  await poisonEmbedding(directory, 9, shape.hiddenSize);
  const { model } = await openModel(directory, 64);
  const params = { maxTokens: 40, topK: 8 };
  const good = { promptIds: Int32Array.of(1, 2, 3), params, stopIds: [9] };
  const alone = await sampleAll(model, good);
  const broken = expect(sampleAll(model, { promptIds: Int32Array.of(1, 9, 3) })).rejects.toMatchObject({
    code: "engine_failed",
  });
  expect(await sampleAll(model, good)).toEqual(alone);
  await broken;
  // Beside a request that waits with some of its samples, too: those start when there is room.
  const many = sampleAll(model, { ...good, n: MAX_CLIENT_SLOTS + 6, client: "many" });
  await eventually(() => model.load().active > 0 && model.load().waiting > 0);
  const failing = sampleAll(model, { promptIds: Int32Array.of(2, 9), client: "broken" });
  await expect(failing).rejects.toMatchObject({ code: "engine_failed" });
  expect((await many).every(({ reason }) => reason !== undefined)).toBe(true);
  const sequences = [{ ids: Int32Array.of(1, 9, 3) }];
  await expect(model.logprobs({ sequences, temperature: 1 })).rejects.toMatchObject({ code: "engine_failed" });
  await model.close();
});

test("closing rejects what is under way and everything later", async () => {
  const { model } = await openModel(goldenDirectory("mistral"));
  const running = sampleAll(model, { promptIds, params: LONG });
  const rejected = expect(running).rejects.toMatchObject({ code: "engine_failed" });
  await new Promise((resolve) => setTimeout(resolve, 50));
  await model.close();
  await rejected;
  await expect(sampleAll(model, { promptIds })).rejects.toMatchObject({ code: "engine_failed" });
  const sequences = [{ ids: promptIds }];
  await expect(model.logprobs({ sequences, temperature: 1 })).rejects.toMatchObject({ code: "engine_failed" });
});

test("the caller's thread stays responsive while the model computes", async () => {
  let ticks = 0;
  let longest = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
    ticks++;
  }, 5);
  const ids = Int32Array.from({ length: 500 }, (_, i) => (i * 17) % 500);
  await opened.model.logprobs({ sequences: Array.from({ length: 8 }, () => ({ ids })), temperature: 1 });
  clearInterval(timer);
  expect(ticks).toBeGreaterThan(5);
  expect(longest).toBeLessThan(500);
});

test("precisions and devices that are not there are refused by name", async () => {
  const engine = createOnnxEngine({ cacheDir: scratch });
  const checkpoint = await openCheckpoint(goldenDirectory("mistral"));
  const options = { precision: "fp32", contextLength: 64, threads: 1, device: "cpu" } as const;
  await expect(engine.open(checkpoint, { ...options, device: "abacus" })).rejects.toMatchObject({
    code: "unsupported_by_backend",
  });
  await expect(engine.open(checkpoint, { ...options, device: "cuda:0" })).rejects.toThrow(/install:cuda/);
  const quantised = { precision: "q8", device: "cuda:0" } as const;
  for (const refused of [engine.check(quantised), engine.open(checkpoint, { ...options, ...quantised })]) {
    await expect(refused).rejects.toMatchObject({ code: "unsupported_by_backend", param: "precision" });
  }
});

/** Writes NaN into one row of the embedding table. */
async function poisonEmbedding(directory: string, id: number, width: number): Promise<void> {
  const file = path.join(directory, "model.safetensors");
  const bytes = await readFile(file);
  const { tensors } = await openCheckpoint(directory);
  const { offset } = tensors["model.embed_tokens.weight"]!;
  for (let i = 0; i < width; i++) bytes.writeFloatLE(Number.NaN, offset + (id * width + i) * 4);
  await writeFile(file, bytes);
}
