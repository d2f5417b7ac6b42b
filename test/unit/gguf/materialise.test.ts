import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Tokenizer } from "@huggingface/tokenizers";
import { afterAll, expect, test } from "vitest";
import { convertGguf } from "../../../src/model/gguf/convert.ts";
import { materialiseGguf } from "../../../src/model/gguf/materialise.ts";
import { openCheckpoint } from "../../../src/model/open.ts";
import { ggufFromCheckpoint, readCheckpointTensors, toFloats } from "./from-checkpoint.ts";
import { encodeGguf, text } from "./write-gguf.ts";

const golden = fileURLToPath(new URL("../../golden/", import.meta.url));
const root = mkdtempSync(join(tmpdir(), "preceptor-gguf-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let files = 0;
function place(bytes: Uint8Array, name = `model-${files++}.gguf`): string {
  const path = join(root, name);
  writeFileSync(path, bytes);
  return path;
}
const cache = join(root, "cache");
/** On this thread: starting a worker takes longer than converting. */
function convert(spec: Parameters<typeof encodeGguf>[0]): string {
  const target = join(root, "direct", `checkpoint-${files}`);
  convertGguf(place(encodeGguf(spec)), target, () => undefined);
  return target;
}

const FAMILIES = ["llama", "llama3-rope", "mistral", "qwen2", "qwen2-tied", "qwen3", "gemma3"];

test.each(FAMILIES)("%s comes back from GGUF with its tensors and its configuration", async (name) => {
  const original = join(golden, "models", name);
  const directory = convert(ggufFromCheckpoint(original));
  const before = readCheckpointTensors(original);
  const after = readCheckpointTensors(directory);
  expect([...after.keys()].sort()).toEqual([...before.keys()].sort());
  for (const [key, tensor] of before) {
    const found = after.get(key)!;
    expect(found.shape, key).toEqual(tensor.shape);
    // gemma's norms went through w + 1 in float32.
    const worst = maxDifference(toFloats(found), toFloats(tensor));
    expect(worst, key).toBeLessThanOrEqual(name === "gemma3" ? 1e-7 : 0);
    if (tensor.shape.length === 2) expect(found.dtype, key).toBe(tensor.dtype);
  }
  const expected = (await openCheckpoint(original)).config;
  const { config, eosIds } = await openCheckpoint(directory);
  // GGUF knows no mistral: it is a llama without windows, which is the same arithmetic here.
  expect({ ...config, ropes: null }).toEqual({
    ...expected,
    ropes: null,
    ...(name === "mistral" ? { family: "llama" } : {}),
  });
  for (const [i, rope] of config.ropes.entries()) {
    expect(relativeDifference(rope.inverseFrequencies, expected.ropes[i]!.inverseFrequencies)).toBeLessThan(2e-7);
  }
  expect(eosIds[0]).toBe(2);
});

test("the tokenizer gives the golden ids, specials and chat template", () => {
  const directory = convert(ggufFromCheckpoint(join(golden, "models/llama")));
  const config = JSON.parse(readFileSync(join(directory, "tokenizer_config.json"), "utf8"));
  const tokenizer = new Tokenizer(JSON.parse(readFileSync(join(directory, "tokenizer.json"), "utf8")), config);
  const { strings } = JSON.parse(readFileSync(join(golden, "tokenizer.json"), "utf8")).tokenizer as {
    strings: { text: string; ids: number[] }[];
  };
  expect(strings.length).toBeGreaterThan(5);
  for (const { text: string, ids } of strings)
    expect(tokenizer.encode(string).ids, JSON.stringify(string)).toEqual(ids);
  expect(config).toMatchObject({ eos_token: "<|im_end|>", pad_token: "<|endoftext|>", bos_token: null });
  expect(config.chat_template).toBe(readFileSync(join(golden, "models/llama/chat_template.jinja"), "utf8"));
  const { model } = JSON.parse(readFileSync(join(directory, "tokenizer.json"), "utf8"));
  expect(Object.keys(model.vocab)).toHaveLength(480); // the padding to 512 rows is no vocabulary
});

test("quantised matrices become F32 within half a step of the original", async () => {
  const original = join(golden, "models/llama");
  const directory = convert(ggufFromCheckpoint(original, "Q8_0"));
  const before = toFloats(readCheckpointTensors(original).get("model.layers.1.self_attn.q_proj.weight")!);
  const stored = readCheckpointTensors(directory).get("model.layers.1.self_attn.q_proj.weight")!;
  expect(stored.dtype).toBe("F32");
  const largest = before.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  // Half a step of 1/127 of the block's largest value, and the scale's own rounding to half precision.
  expect(maxDifference(toFloats(stored), before)).toBeLessThan((largest / 127) * 0.56);
  await expect(openCheckpoint(directory)).resolves.toMatchObject({ config: { layers: 3 } });
});

test("the converted checkpoint remembers what most of its weights were", async () => {
  const original = join(golden, "models/llama");
  const spec = ggufFromCheckpoint(original, "Q8_0");
  const mixed = ggufFromCheckpoint(original, "Q4_0").tensors.map((tensor, i) =>
    tensor.name.startsWith("blk.0.") ? spec.tensors[i]! : tensor,
  );
  const typeOf = async (directory: string) => (await openCheckpoint(directory)).ggufType;
  expect(await typeOf(convert(spec))).toBe("Q8_0");
  expect(await typeOf(convert({ ...spec, tensors: mixed }))).toBe("Q4_0");
  expect(await typeOf(original)).toBeUndefined();
  // Directories that were converted before, and whatever else may stand there.
  const directory = convert(spec);
  const config = JSON.parse(readFileSync(join(directory, "config.json"), "utf8"));
  for (const type of [undefined, null, 8, "Q9_9", ["Q8_0"]]) {
    writeFileSync(join(directory, "config.json"), JSON.stringify({ ...config, preceptor_gguf_type: type }));
    expect(await typeOf(directory)).toBeUndefined();
  }
});

test("a converted file is found again, a changed one is converted anew", async () => {
  const spec = ggufFromCheckpoint(join(golden, "models/llama"));
  const path = place(encodeGguf(spec));
  let reports = 0;
  const first = await materialiseGguf(path, cache, { onProgress: () => reports++ });
  expect(reports).toBeGreaterThan(0);
  reports = 0;
  expect(await materialiseGguf(path, cache, { onProgress: () => reports++ })).toBe(first);
  expect(reports).toBe(0);
  writeFileSync(path, encodeGguf({ ...spec, metadata: { ...spec.metadata, "general.name": text("tesu") } }));
  utimesSync(path, 1, 1);
  expect(await materialiseGguf(path, cache)).not.toBe(first);
});

test("what a killed conversion left is never taken for a checkpoint, and is removed", async () => {
  const parent = join(root, "killed", "gguf");
  const left = join(parent, `.converting-${hostname()}-999999999-abc`);
  const foreign = join(parent, ".converting-elsewhere-1-abc");
  for (const directory of [left, foreign]) {
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, "config.json"), "{}");
  }
  const path = place(encodeGguf(ggufFromCheckpoint(join(golden, "models/llama"))));
  const results = await Promise.all([1, 2, 3].map(() => materialiseGguf(path, join(root, "killed"))));
  expect(new Set(results).size).toBe(1);
  expect(existsSync(left)).toBe(false);
  expect(readdirSync(parent).filter((entry) => entry.startsWith(".converting-"))).toEqual([
    ".converting-elsewhere-1-abc",
  ]);
});

test("a link keeps the name that messages use", async () => {
  const link = join(root, "pretty-name.gguf");
  symlinkSync(place(Buffer.from("no GGUF"), "0123abcd"), link);
  await expect(materialiseGguf(link, cache)).rejects.toMatchObject({
    message: expect.stringContaining("pretty-name.gguf"),
  });
});

test("a refusal names the reason and leaves nothing behind", async () => {
  const spec = ggufFromCheckpoint(join(golden, "models/llama"));
  const target = join(root, "refused", "gguf", "key");
  const cases: [string, Parameters<typeof encodeGguf>[0]][] = [
    ["unsupported_architecture", { ...spec, metadata: { ...spec.metadata, "general.architecture": text("rwkv7") } }],
    ["unsupported_checkpoint", { ...spec, metadata: { ...spec.metadata, "tokenizer.ggml.pre": text("klingon") } }],
    ["unsupported_checkpoint", { ...spec, metadata: { ...spec.metadata, "tokenizer.ggml.model": text("t5") } }],
    ["invalid_checkpoint", { ...spec, tensors: spec.tensors.filter(({ name }) => name !== "blk.1.ffn_up.weight") }],
    [
      "unsupported_checkpoint",
      { ...spec, tensors: [...spec.tensors, { ...spec.tensors[0]!, name: "blk.0.attn_sinks.weight" }] },
    ],
  ];
  for (const [code, wrong] of cases) {
    const path = place(encodeGguf(wrong));
    expect(() => convertGguf(path, target, () => undefined)).toThrow(expect.objectContaining({ code }));
  }
  // An error crosses the worker's boundary with its code.
  const broken = place(encodeGguf(spec).subarray(0, 100_000));
  await expect(materialiseGguf(broken, join(root, "refused"))).rejects.toMatchObject({ code: "invalid_checkpoint" });
  expect(existsSync(join(root, "refused", "gguf")) ? readdirSync(join(root, "refused", "gguf")) : []).toEqual([]);
  await expect(materialiseGguf(join(root, "absent.gguf"), cache)).rejects.toMatchObject({
    code: "model_source_not_found",
  });
  await expect(materialiseGguf(root, cache)).rejects.toMatchObject({ code: "invalid_checkpoint" });
});

function maxDifference(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  return a.reduce((worst, value, i) => Math.max(worst, Math.abs(value - b[i]!)), 0);
}

function relativeDifference(a: Float32Array, b: Float32Array): number {
  return a.reduce((worst, value, i) => Math.max(worst, Math.abs(value - b[i]!) / b[i]!), 0);
}
