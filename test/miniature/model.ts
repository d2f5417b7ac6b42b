/** The miniature's models: small decoders as Hugging Face checkpoints, from scratch given a config and a seed. */
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import type { ModelConfig } from "../../src/model/checkpoint.ts";
import { parseConfig } from "../../src/model/config.ts";
import { initialWeights } from "../../src/model/initialise.ts";
import { type TensorToWrite, writeSafetensors } from "../../src/model/safetensors-write.ts";
import { END_ID, PAD_ID, VOCABULARY, writeTokenizer } from "./vocabulary.ts";

/** What config.json holds. */
export type ConfigFile = Readonly<Record<string, unknown>>;

export interface Weight {
  shape: readonly number[];
  /** Row major; linear weights are (out, in). */
  data: Float32Array;
}

/** By Hugging Face name: `model.layers.0.self_attn.q_proj.weight`, … */
export type Weights = ReadonlyMap<string, Weight>;

const ARCHITECTURES = { llama: "LlamaForCausalLM", qwen3: "Qwen3ForCausalLM" } as const;

/**
 * 0.86 M parameters: the size that learnt the task in minutes (miniature.md), with rotary positions only.
 * @param changes keys of config.json that are to be otherwise (a smaller model for a test)
 */
export function miniatureConfig(family: keyof typeof ARCHITECTURES = "llama", changes: ConfigFile = {}): ConfigFile {
  return {
    architectures: [ARCHITECTURES[family]],
    model_type: family,
    vocab_size: VOCABULARY.length,
    hidden_size: 128,
    intermediate_size: 384,
    num_hidden_layers: 4,
    num_attention_heads: 4,
    num_key_value_heads: 4,
    head_dim: 32,
    max_position_embeddings: 256,
    rms_norm_eps: 1e-6,
    rope_theta: 10_000,
    hidden_act: "silu",
    attention_bias: false,
    tie_word_embeddings: true,
    bos_token_id: null,
    eos_token_id: END_ID,
    pad_token_id: PAD_ID,
    torch_dtype: "float32",
    ...changes,
  };
}

/** The same numbers as the engine and the training read them. */
export function modelConfig(config: ConfigFile): ModelConfig {
  return parseConfig({ ...config }).config;
}

/** Drawn by the project's own code for trainings from scratch. */
export function randomWeights(config: ModelConfig, seed: number): Weights {
  return new Map([...initialWeights(config, seed)].map(({ name, shape, data }) => [name, { shape, data }]));
}

/** config.json and the tokenizer's files: a checkpoint but for its weights. */
export async function writeModelFiles(directory: string, config: ConfigFile): Promise<void> {
  await mkdir(directory, { recursive: true });
  await writeFile(path.join(directory, "config.json"), JSON.stringify(config, null, 2));
  await writeTokenizer(directory);
}

/** A checkpoint that a server can register as it is. */
export async function writeModel(directory: string, config: ConfigFile, weights: Weights): Promise<void> {
  await writeModelFiles(directory, config);
  const tensors = [...weights].map(([name, { shape, data }]): TensorToWrite => {
    return { name, shape, dtype: "F32", data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) };
  });
  await writeSafetensors(path.join(directory, "model.safetensors"), tensors);
}
