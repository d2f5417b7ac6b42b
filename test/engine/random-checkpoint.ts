import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { type TensorToWrite, writeSafetensors } from "../../src/model/safetensors-write.ts";

/** A llama-shaped checkpoint with random weights, for shapes that the golden data lack and for benchmarks. */
export interface RandomShape {
  vocabSize: number;
  hiddenSize: number;
  intermediateSize: number;
  layers: number;
  heads: number;
  kvHeads: number;
  maxPositions: number;
  tied: boolean;
  dtype: "F32" | "BF16";
  /** Weights are uniform in ±scale. */
  scale: number;
  /** Merged into config.json. */
  config?: Record<string, unknown>;
}

export const SMOLLM2_135M: RandomShape = {
  vocabSize: 49_152,
  hiddenSize: 576,
  intermediateSize: 1536,
  layers: 30,
  heads: 9,
  kvHeads: 3,
  maxPositions: 8192,
  tied: true,
  dtype: "BF16",
  scale: 0.05,
};

export async function writeRandomCheckpoint(directory: string, shape: RandomShape, seed = 1): Promise<void> {
  await mkdir(directory, { recursive: true });
  await writeFile(path.join(directory, "config.json"), JSON.stringify(configOf(shape)));
  const next = generator(seed);
  const tensors = Object.entries(tensorShapes(shape)).map(([name, dims]): TensorToWrite => {
    const base = name.includes("norm") ? 1 : 0;
    return { name, dtype: shape.dtype, shape: dims, data: () => [randomTensor(dims, shape, base, next)] };
  });
  await writeSafetensors(path.join(directory, "model.safetensors"), tensors);
}

function configOf(shape: RandomShape): Record<string, unknown> {
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    vocab_size: shape.vocabSize,
    hidden_size: shape.hiddenSize,
    intermediate_size: shape.intermediateSize,
    num_hidden_layers: shape.layers,
    num_attention_heads: shape.heads,
    num_key_value_heads: shape.kvHeads,
    max_position_embeddings: shape.maxPositions,
    rms_norm_eps: 1e-5,
    rope_theta: 100_000,
    hidden_act: "silu",
    tie_word_embeddings: shape.tied,
    eos_token_id: 2,
    torch_dtype: shape.dtype === "F32" ? "float32" : "bfloat16",
    ...shape.config,
  };
}

function tensorShapes(s: RandomShape): Record<string, number[]> {
  const headDim = s.hiddenSize / s.heads;
  const shapes: Record<string, number[]> = { "model.embed_tokens.weight": [s.vocabSize, s.hiddenSize] };
  for (let l = 0; l < s.layers; l++) {
    const p = `model.layers.${l}`;
    shapes[`${p}.input_layernorm.weight`] = [s.hiddenSize];
    shapes[`${p}.self_attn.q_proj.weight`] = [s.heads * headDim, s.hiddenSize];
    shapes[`${p}.self_attn.k_proj.weight`] = [s.kvHeads * headDim, s.hiddenSize];
    shapes[`${p}.self_attn.v_proj.weight`] = [s.kvHeads * headDim, s.hiddenSize];
    shapes[`${p}.self_attn.o_proj.weight`] = [s.hiddenSize, s.heads * headDim];
    shapes[`${p}.post_attention_layernorm.weight`] = [s.hiddenSize];
    shapes[`${p}.mlp.gate_proj.weight`] = [s.intermediateSize, s.hiddenSize];
    shapes[`${p}.mlp.up_proj.weight`] = [s.intermediateSize, s.hiddenSize];
    shapes[`${p}.mlp.down_proj.weight`] = [s.hiddenSize, s.intermediateSize];
  }
  shapes["model.norm.weight"] = [s.hiddenSize];
  if (!s.tied) shapes["lm_head.weight"] = [s.vocabSize, s.hiddenSize];
  return shapes;
}

function randomTensor(dims: number[], shape: RandomShape, base: number, next: () => number): Uint8Array {
  const floats = new Float32Array(dims.reduce((a, b) => a * b, 1));
  for (let i = 0; i < floats.length; i++) floats[i] = base + next() * shape.scale;
  if (shape.dtype === "F32") return new Uint8Array(floats.buffer);
  // bfloat16 is the upper half of a float32.
  const words = new Uint32Array(floats.buffer);
  return new Uint8Array(Uint16Array.from(words, (word) => word >>> 16).buffer);
}

/** Uniform in [−1, 1): a linear congruential generator is random enough for weights and the same everywhere. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}
