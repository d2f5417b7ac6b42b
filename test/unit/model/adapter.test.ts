import { appendFile, cp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import fc from "fast-check";
import { beforeEach, describe, expect, test } from "vitest";
import { PreceptorError } from "../../../src/errors.ts";
import { hashAdapter, openAdapter } from "../../../src/model/adapter.ts";
import type { AdapterTarget, Checkpoint } from "../../../src/model/checkpoint.ts";
import { encodeFloats } from "../../../src/model/dtype.ts";
import { openCheckpoint } from "../../../src/model/open.ts";
import { readSafetensorsHeader } from "../../../src/model/safetensors.ts";
import { type TensorToWrite, writeSafetensors } from "../../../src/model/safetensors-write.ts";
import { readTensor } from "../../../src/model/tensor-data.ts";
import { GOLDEN, GOLDEN_NAMES, temporaryDirectory, writeCheckpoint } from "./fixture.ts";

describe("golden adapters", () => {
  test.each(GOLDEN_NAMES)("%s", async (name) => {
    const checkpoint = await openCheckpoint(path.join(GOLDEN, name));
    const adapter = await openAdapter(path.join(GOLDEN, name, "adapter"), checkpoint);
    expect(adapter.targets).toHaveLength(7 * checkpoint.config.layers);
    expect(adapter.targets.every(({ rank, scale }) => rank === 4 && scale === 2)).toBe(true);
    const { layer, module, a, b } = adapter.targets[6] as AdapterTarget;
    expect([layer, module]).toEqual([0, "down_proj"]);
    expect(a.shape).toEqual([4, checkpoint.config.intermediateSize]);
    expect(b.shape).toEqual([checkpoint.config.hiddenSize, 4]);
    expect((await readTensor(a)).some((x) => x !== 0)).toBe(true);
  });

  test("equal bytes share a hash, other bytes do not", async () => {
    const checkpoint = await openCheckpoint(path.join(GOLDEN, "llama"));
    const original = await openAdapter(path.join(GOLDEN, "llama/adapter"), checkpoint);
    const copy = path.join(await temporaryDirectory(), "adapter");
    await cp(path.join(GOLDEN, "llama/adapter"), copy, { recursive: true });
    expect((await openAdapter(copy, checkpoint)).hash).toBe(original.hash);
    expect(await hashAdapter(copy)).toBe(original.hash);
    await appendFile(path.join(copy, "adapter_config.json"), "\n");
    expect(await hashAdapter(copy)).not.toBe(original.hash);
    await rm(path.join(copy, "adapter_model.safetensors"));
    await expect(hashAdapter(copy)).rejects.toMatchObject({ code: "invalid_adapter" });
    const other = await openCheckpoint(path.join(GOLDEN, "llama3-rope"));
    expect((await openAdapter(path.join(GOLDEN, "llama3-rope/adapter"), other)).hash).not.toBe(original.hash);
  });

  test("an adapter of another base is refused with both shapes", async () => {
    const checkpoint = await openCheckpoint(path.join(GOLDEN, "qwen3"));
    await expect(openAdapter(path.join(GOLDEN, "qwen2/adapter"), checkpoint)).rejects.toMatchObject({
      code: "invalid_adapter",
      message: expect.stringMatching(/k_proj\.lora_B has shape \[32, 4\].*\[64, 4\].*another base/),
    });
  });
});

const CONFIG = { peft_type: "LORA", r: 2, lora_alpha: 6, target_modules: ["q_proj", "down_proj"], bias: "none" };
/** The fixture's base: hidden 8, q 8, MLP 12, two layers. */
const MODULES = { "self_attn.q_proj": [8, 8], "mlp.down_proj": [8, 12] } as const;

function matrix(name: string, shape: readonly number[]): TensorToWrite {
  const values = new Float32Array(shape.reduce((x, y) => x * y, 1)).fill(0.5);
  return { name, dtype: "F32", shape, data: encodeFloats(values, "F32") };
}

function matrices(
  rank: (module: string, layer: number) => number = () => 2,
  prefix = "base_model.model.model.",
): TensorToWrite[] {
  return [0, 1].flatMap((layer) =>
    Object.entries(MODULES).flatMap(([module, [out, width]]) => [
      matrix(`${prefix}layers.${layer}.${module}.lora_A.weight`, [rank(module, layer), width]),
      matrix(`${prefix}layers.${layer}.${module}.lora_B.weight`, [out, rank(module, layer)]),
    ]),
  );
}

let checkpoint: Checkpoint;
beforeEach(async () => {
  checkpoint = await openCheckpoint(await writeCheckpoint());
});

async function writeAdapter(config: Record<string, unknown> = {}, tensors = matrices()): Promise<string> {
  const directory = await temporaryDirectory();
  await writeFile(path.join(directory, "adapter_config.json"), JSON.stringify({ ...CONFIG, ...config }));
  await writeSafetensors(path.join(directory, "adapter_model.safetensors"), tensors);
  return directory;
}

async function scales(config: Record<string, unknown>, tensors = matrices()) {
  const { targets } = await openAdapter(await writeAdapter(config, tensors), checkpoint);
  return Object.fromEntries(targets.map(({ layer, module, rank, scale }) => [`${layer}.${module}`, [rank, scale]]));
}

describe("rank and scale", () => {
  test("alpha / r; alpha / sqrt(r) with rsLoRA; alpha 8 by default", async () => {
    expect((await scales({}))["1.q_proj"]).toEqual([2, 3]);
    expect((await scales({ use_rslora: true }))["1.q_proj"]).toEqual([2, 6 / Math.sqrt(2)]);
    expect((await scales({ lora_alpha: undefined }))["1.q_proj"]).toEqual([2, 4]);
  });

  test("patterns by name, by path and by expression; the first that matches counts", async () => {
    const byName = matrices((module) => (module === "mlp.down_proj" ? 3 : 2));
    expect(await scales({ rank_pattern: { down_proj: 3 }, alpha_pattern: { down_proj: 9 } }, byName)).toEqual({
      "0.q_proj": [2, 3],
      "0.down_proj": [3, 3],
      "1.q_proj": [2, 3],
      "1.down_proj": [3, 3],
    });
    const byPath = matrices((module, layer) => (module === "self_attn.q_proj" && layer === 1 ? 4 : 2));
    expect((await scales({ rank_pattern: { "model.layers.1.self_attn.q_proj": 4 } }, byPath))["1.q_proj"]).toEqual([
      4, 1.5,
    ]);
    const alpha_pattern = { "layers\\.\\d+\\..*[qx]_proj": 10, "[qk]_proj": 20 };
    expect(await scales({ alpha_pattern })).toMatchObject({
      "0.q_proj": [2, 5],
      "1.q_proj": [2, 5],
      "0.down_proj": [2, 3],
    });
    // A name matches from a dot on, not inside a word.
    expect((await scales({ alpha_pattern: { proj: 100 } }))["0.q_proj"]).toEqual([2, 3]);
  });

  test("an expression that could run for years is refused, not run", async () => {
    for (const pattern of [
      "(a+)+$",
      "(.*)*x",
      "a*a*a*a*a*b",
      ".*q.*",
      "(?=x)q_proj",
      "(q_proj",
      `${"x".repeat(201)}*`,
    ]) {
      await expect(scales({ alpha_pattern: { [pattern]: 1 } }), pattern).rejects.toMatchObject({
        code: "invalid_adapter",
      });
    }
  });

  test("target_modules as an expression or all-linear is not evaluated", async () => {
    expect(Object.keys(await scales({ target_modules: "(.*)*_proj" }))).toHaveLength(4);
    expect(Object.keys(await scales({ target_modules: "all-linear" }))).toHaveLength(4);
  });

  test("tensor names with the adapter's own name, and under multimodal prefixes", async () => {
    const named = matrices().map((tensor) => ({
      ...tensor,
      name: tensor.name.replace(/\.weight$/, ".default.weight"),
    }));
    expect(Object.keys(await scales({}, named))).toHaveLength(4);
    expect(
      Object.keys(
        await scales(
          {},
          matrices(() => 2, "base_model.model.model.language_model."),
        ),
      ),
    ).toHaveLength(4);
  });
});

describe("refused by name", () => {
  test.each([
    ["another method", { peft_type: "IA3" }, /"IA3"/],
    ["no method", { peft_type: undefined }, /peft|type/],
    ["DoRA", { use_dora: true }, /use_dora.*DoRA/],
    ["biases", { bias: "all" }, /bias \("all"\)/],
    ["saved modules", { modules_to_save: ["lm_head"] }, /modules_to_save/],
    ["LoRA biases", { lora_bias: true }, /lora_bias/],
    ["transposed weights", { fan_in_fan_out: true }, /fan_in_fan_out/],
    ["replicated layers", { layer_replication: [[0, 2]] }, /layer_replication/],
    ["PiSSA", { init_lora_weights: "pissa" }, /init_lora_weights/],
    ["classifier", { task_type: "SEQ_CLS" }, /task_type/],
    ["tokens", { trainable_token_indices: [1] }, /trainable_token_indices/],
    ["no rank", { r: undefined }, /r is missing/],
    ["rank 0", { r: 0 }, /r is 0/],
    ["alpha as text", { lora_alpha: "8" }, /lora_alpha/],
    ["rank against the file", { r: 3 }, /shape \[2, 8\].*\[3, 8\]/],
    ["targets as number", { target_modules: [1] }, /target_modules/],
    ["a target without matrices", { target_modules: ["q_proj", "down_proj", "v_proj"] }, /names v_proj/],
    ["matrices without target", { target_modules: ["q_proj"] }, /down_proj has LoRA matrices but is not among/],
    ["a pattern that is no number", { rank_pattern: { q_proj: "x" } }, /rank_pattern.*q_proj/],
  ])("%s", async (_name, config, message) => {
    await expect(openAdapter(await writeAdapter(config), checkpoint)).rejects.toMatchObject({
      code: "invalid_adapter",
      message: expect.stringMatching(message),
    });
  });

  const first = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
  test.each([
    ["one half of a pair", (all: TensorToWrite[]) => all.slice(1), /lacks its lora_A/],
    ["no tensors", () => [], /holds no LoRA matrices/],
    [
      "a layer the base lacks",
      (all: TensorToWrite[]) => [...all, matrix(first.replace("layers.0", "layers.2"), [2, 8])],
      /2 layers/,
    ],
    [
      "the head",
      (all: TensorToWrite[]) => [...all, matrix("base_model.model.lm_head.lora_A.weight", [2, 8])],
      /embedding or the head/,
    ],
    [
      "the embedding",
      (all: TensorToWrite[]) => [...all, matrix("base_model.model.model.embed_tokens.lora_embedding_A", [2, 8])],
      /embedding or the head/,
    ],
    [
      "a magnitude",
      (all: TensorToWrite[]) => [...all, matrix(first.replace("lora_A.weight", "lora_magnitude_vector"), [8])],
      /DoRA/,
    ],
    [
      "an MLP map under attention",
      (all: TensorToWrite[]) => [...all, matrix(first.replace("q_proj", "up_proj"), [2, 8])],
      /not a LoRA matrix/,
    ],
    [
      "a method's name",
      (all: TensorToWrite[]) => [...all, matrix(first.replace("q_proj", "constructor"), [2, 8])],
      /not a LoRA matrix/,
    ],
    [
      "the same matrix twice",
      (all: TensorToWrite[]) => [...all, matrix(first.replace(".weight", ".default.weight"), [2, 8])],
      /two lora_A/,
    ],
    ["integers", (all: TensorToWrite[]) => all.map((tensor) => ({ ...tensor, dtype: "I32" as const })), /is I32/],
    [
      "three dimensions",
      (all: TensorToWrite[]) => all.map((tensor) => ({ ...tensor, shape: [...tensor.shape, 1] })),
      /shape \[2, 8, 1\]/,
    ],
  ])("a file with %s", async (_name, edit, message) => {
    await expect(openAdapter(await writeAdapter({}, edit(matrices())), checkpoint)).rejects.toMatchObject({
      code: "invalid_adapter",
      message: expect.stringMatching(message),
    });
  });

  test("missing, damaged and foreign files", async () => {
    const directory = await writeAdapter();
    const weights = path.join(directory, "adapter_model.safetensors");
    const bytes = await readFile(weights);
    await writeFile(weights, bytes.subarray(0, bytes.length - 1));
    await expect(openAdapter(directory, checkpoint)).rejects.toMatchObject({ code: "invalid_adapter" });
    await rm(weights);
    await writeFile(path.join(directory, "adapter_model.bin"), "");
    await expect(openAdapter(directory, checkpoint)).rejects.toThrow(/convert adapter_model\.bin/);
    await symlink(path.join(await writeAdapter(), "adapter_model.safetensors"), weights);
    await expect(openAdapter(directory, checkpoint)).rejects.toMatchObject({ code: "model_source_not_allowed" });
    await expect(openAdapter(path.join(directory, "absent"), checkpoint)).rejects.toMatchObject({
      code: "model_source_not_found",
    });
    await expect(openAdapter(checkpoint.directory, checkpoint)).rejects.toThrow(/no adapter_config\.json/);
  });
});

test("whatever adapter_config.json holds, the answer is an adapter or a PreceptorError", async () => {
  const directory = await writeAdapter();
  const golden = JSON.parse(await readFile(path.join(GOLDEN, "llama/adapter/adapter_config.json"), "utf8")) as object;
  const change = fc.dictionary(
    fc.constantFrom(...Object.keys(golden)),
    fc.oneof(fc.jsonValue(), fc.constant("x"), fc.integer()),
    { maxKeys: 3 },
  );
  await fc.assert(
    fc.asyncProperty(change, async (fields) => {
      await writeFile(path.join(directory, "adapter_config.json"), JSON.stringify({ ...CONFIG, ...fields }));
      const outcome = await openAdapter(directory, checkpoint).catch((error: unknown) => error);
      if (outcome instanceof Error) expect(outcome).toBeInstanceOf(PreceptorError);
    }),
    { numRuns: 200 },
  );
  expect((await readSafetensorsHeader(path.join(directory, "adapter_model.safetensors"))).tensors.size).toBe(8);
});
