/** A tiny llama checkpoint in a temporary directory, and raw safetensors files that may lie. */
import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach } from "vitest";
import { parseConfig } from "../../../src/model/config.ts";
import { encodeFloats, type FloatDtype } from "../../../src/model/dtype.ts";
import { type TensorToWrite, writeSafetensors } from "../../../src/model/safetensors-write.ts";
import { expectedTensors } from "../../../src/model/tensors.ts";

export const GOLDEN = fileURLToPath(new URL("../../golden/models/", import.meta.url));
export const GOLDEN_NAMES = ["gemma3", "llama", "llama3-rope", "mistral", "qwen2", "qwen2-tied", "qwen3"] as const;

const created: string[] = [];
afterEach(async () => {
  await Promise.all(created.splice(0).map((directory) => rm(directory, { recursive: true, force: true })));
});

export async function temporaryDirectory(): Promise<string> {
  const directory = await realpath(await mkdtemp(path.join(tmpdir(), "preceptor-model-")));
  created.push(directory);
  return directory;
}

export const LLAMA_CONFIG = {
  model_type: "llama",
  architectures: ["LlamaForCausalLM"],
  vocab_size: 10,
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: false,
  hidden_act: "silu",
  eos_token_id: 2,
};

/** Every tensor a config asks for, filled with small numbers that differ from tensor to tensor. */
export function tensorsFor(config: Record<string, unknown>, dtype: FloatDtype = "F32"): TensorToWrite[] {
  return [...expectedTensors(parseConfig(config).config)].map(([name, shape], t) => {
    const values = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => ((i + t) % 17) / 8);
    return { name, dtype, shape, data: encodeFloats(values, dtype) };
  });
}

/** Directory with config.json and model.safetensors; both can be overridden. */
export async function writeCheckpoint(
  overrides: { config?: Record<string, unknown>; tensors?: TensorToWrite[]; directory?: string } = {},
): Promise<string> {
  const directory = overrides.directory ?? (await temporaryDirectory());
  const config = overrides.config ?? LLAMA_CONFIG;
  await mkdir(directory, { recursive: true });
  await writeFile(path.join(directory, "config.json"), JSON.stringify(config));
  await writeSafetensors(path.join(directory, "model.safetensors"), overrides.tensors ?? tensorsFor(config));
  return directory;
}

/** Bytes of a safetensors file whose header is whatever the caller says. */
export function rawSafetensors(header: unknown, data: Uint8Array, length?: bigint): Uint8Array {
  const json = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + json.length + data.length);
  new DataView(bytes.buffer).setBigUint64(0, length ?? BigInt(json.length), true);
  bytes.set(json, 8);
  bytes.set(data, 8 + json.length);
  return bytes;
}
