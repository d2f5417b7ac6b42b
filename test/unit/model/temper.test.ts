import { chmod, readdir, readFile, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, expect, test } from "vitest";
import type { TensorLocation } from "../../../src/model/checkpoint.ts";
import { inspectModel } from "../../../src/model/inspect.ts";
import { openCheckpoint } from "../../../src/model/open.ts";
import { temperCheckpoint } from "../../../src/model/temper.ts";
import { readTensor } from "../../../src/model/tensor-data.ts";
import { GOLDEN, temporaryDirectory, writeCheckpoint } from "./fixture.ts";

const NORM = "model.norm.weight";

/** Relative rounding of each dtype: half a unit in the last place. */
const ROUNDING = { F32: 2 ** -24, F16: 2 ** -11, BF16: 2 ** -8 } as const;

describe.each([
  ["llama3-rope", "F32"],
  ["llama", "BF16"],
  ["mistral", "F16"],
  ["gemma3", "F32"],
] as const)("%s (%s)", (name, dtype) => {
  test("the final norm is divided by T, every other tensor is the same to the bit", async () => {
    const source = path.join(GOLDEN, name);
    const target = path.join(await temporaryDirectory(), "tempered");
    expect(await temperCheckpoint(source, target, 0.7)).toBe(target);
    const before = await openCheckpoint(source);
    const after = await openCheckpoint(target);
    // What multiplies the normalised state: w, or 1 + w for gemma. The head is linear, so the logits follow it.
    const factor = async (location: TensorLocation) =>
      (await readTensor(location)).map((w) => (name === "gemma3" ? 1 + w : w));
    const old = await factor(before.tensors[NORM] as TensorLocation);
    const tempered = await factor(after.tensors[NORM] as TensorLocation);
    expect(after.tensors[NORM]?.dtype).toBe(dtype);
    const worst = Math.max(...old.map((w, i) => Math.abs((tempered[i]! * 0.7) / w - 1)));
    expect(worst).toBeLessThan(4 * ROUNDING[dtype]);
    for (const [tensor, location] of Object.entries(before.tensors)) {
      if (tensor === NORM) continue;
      const [a, b] = await Promise.all([location, after.tensors[tensor] as TensorLocation].map(readTensor));
      expect(Buffer.from(a!.buffer).equals(Buffer.from(b!.buffer)), tensor).toBe(true);
    }
    expect(after.config).toEqual(before.config);
    expect(after.weightsHash).not.toBe(before.weightsHash);
    expect(await readdir(target)).toEqual(
      expect.arrayContaining(["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]),
    );
    expect((await inspectModel(target)).tempered).toBe(0.7);
  });
});

test("tempering twice multiplies, the source stays as it was", async () => {
  const source = await writeCheckpoint();
  const original = await readFile(path.join(source, "model.safetensors"));
  await chmod(path.join(source, "model.safetensors"), 0o444);
  const root = await temporaryDirectory();
  await temperCheckpoint(source, path.join(root, "a"), 0.5);
  await temperCheckpoint(path.join(root, "a"), path.join(root, "deep/b"), 0.5);
  const norm = async (directory: string) =>
    readTensor((await openCheckpoint(directory)).tensors[NORM] as TensorLocation);
  expect(await norm(path.join(root, "deep/b"))).toEqual((await norm(source)).map((w) => w * 4));
  expect((await inspectModel(path.join(root, "deep/b"))).tempered).toBe(0.25);
  expect(await readFile(path.join(source, "model.safetensors"))).toEqual(original);
});

test("files of other formats are left behind, the rest is linked rather than copied", async () => {
  const source = await writeCheckpoint();
  for (const name of ["pytorch_model.bin", "model.gguf", "tokenizer.json"])
    await writeFile(path.join(source, name), "{}");
  const target = path.join(await temporaryDirectory(), "out");
  await temperCheckpoint(source, target, 2);
  expect((await readdir(target)).sort()).toEqual(["config.json", "model.safetensors", "tokenizer.json"]);
  expect((await stat(path.join(target, "tokenizer.json"))).ino).toBe(
    (await stat(path.join(source, "tokenizer.json"))).ino,
  );
  expect((await stat(path.join(target, "model.safetensors"))).ino).not.toBe(
    (await stat(path.join(source, "model.safetensors"))).ino,
  );
});

test("refusals leave nothing behind", async () => {
  const root = await temporaryDirectory();
  for (const temperature of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
    await expect(temperCheckpoint(path.join(GOLDEN, "llama"), path.join(root, "x"), temperature)).rejects.toMatchObject(
      { code: "invalid_value", param: "temperature" },
    );
  }
  await expect(temperCheckpoint(path.join(GOLDEN, "mistral"), path.join(root, "x"), 1e-6)).rejects.toThrow(
    /beyond F16/,
  );
  await expect(temperCheckpoint(path.join(root, "absent"), path.join(root, "x"), 1)).rejects.toMatchObject({
    code: "model_source_not_found",
  });
  expect(await readdir(root)).toEqual([]);
  await writeFile(path.join(root, "file"), "");
  for (const out of [root, path.join(root, "file"), path.join(root, "file/below")]) {
    await expect(temperCheckpoint(path.join(GOLDEN, "llama"), out, 1)).rejects.toMatchObject({
      code: "invalid_value",
      param: "out",
    });
  }
  expect(await readdir(root)).toEqual(["file"]);
});
