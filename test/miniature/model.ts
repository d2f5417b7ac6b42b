/** The miniature's models: small decoders as Hugging Face checkpoints, from scratch given a config and a seed. */
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import type { ModelConfig } from "../../src/model/checkpoint.ts";
import { parseConfig } from "../../src/model/config.ts";
import { type TensorToWrite, writeSafetensors } from "../../src/model/safetensors-write.ts";
import { expectedTensors } from "../../src/model/tensors.ts";
import { randomFrom } from "../bench/random.ts";
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

/** Of GPT-2: normal with this deviation, everywhere but in the projections that write to the residual stream. */
const DEVIATION = 0.02;

/**
 * Weights to begin training with: normal, smaller by sqrt(2 · layers) where they add to the residual stream (two such
 * sums per layer: its variance stays that of one); norms 1, biases 0.
 */
export function randomWeights(config: ModelConfig, seed: number): Weights {
  const next = normals(randomFrom(seed));
  const weights = new Map<string, Weight>();
  for (const [name, shape] of expectedTensors(config)) {
    const data = new Float32Array(shape.reduce((product, n) => product * n, 1));
    if (isNorm(name)) data.fill(1);
    else if (!name.endsWith(".bias")) {
      const residual = /\.(o_proj|down_proj)\.weight$/.test(name);
      const deviation = residual ? DEVIATION / Math.sqrt(2 * config.layers) : DEVIATION;
      for (let i = 0; i < data.length; i++) data[i] = deviation * next();
    }
    weights.set(name, { shape, data });
  }
  return weights;
}

const isNorm = (name: string): boolean => /norm\.weight$/.test(name);

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

/** Box–Muller, two at a time. */
function normals(next: () => number): () => number {
  let spare: number | undefined;
  return () => {
    if (spare !== undefined) {
      const kept = spare;
      spare = undefined;
      return kept;
    }
    // 1 − u lies in (0, 1]: its logarithm is finite.
    const radius = Math.sqrt(-2 * Math.log(1 - next()));
    const angle = 2 * Math.PI * next();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
}
