import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { initialiseCheckpoint } from "../../../src/model/initialise.ts";
import { openCheckpoint } from "../../../src/model/open.ts";
import { readTensor } from "../../../src/model/tensor-data.ts";
import { miniatureConfig, writeModelFiles } from "../../miniature/model.ts";

let folder: string;
let shape: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "preceptor-init-"));
  shape = path.join(folder, "shape");
  await writeModelFiles(shape, miniatureConfig("qwen3", { initializer_range: 0.05 }));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

test("a config and a seed make a checkpoint, the same for the same seed", async () => {
  const [a, b, other] = await Promise.all(
    [1, 1, 2].map((seed, i) => initialiseCheckpoint(shape, path.join(folder, `out-${i}`), seed)),
  );
  const [first, same, different] = await Promise.all([a, b, other].map((directory) => openCheckpoint(directory!)));
  expect(first!.weightsHash).toBe(same!.weightsHash);
  expect(first!.weightsHash).not.toBe(different!.weightsHash);
  const deviation = async (name: string): Promise<number> => {
    const values = await readTensor(first!.tensors[name]!);
    return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
  };
  expect(await deviation("model.layers.0.mlp.up_proj.weight")).toBeCloseTo(0.05, 3);
  expect(await deviation("model.layers.0.mlp.down_proj.weight")).toBeCloseTo(0.05 / Math.sqrt(8), 3);
  expect(await deviation("model.layers.0.self_attn.q_norm.weight")).toBe(1);
  expect((await readdir(a!)).sort()).toEqual([
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
  ]);
});

test("nothing is written over, and a folder without a config is refused", async () => {
  const before = await readdir(folder);
  await expect(initialiseCheckpoint(shape, shape, 1)).rejects.toMatchObject({ code: "invalid_value" });
  await expect(initialiseCheckpoint(folder, path.join(folder, "x"), 1)).rejects.toThrow(/no config\.json/);
  expect(await readdir(folder)).toEqual(before);
});
