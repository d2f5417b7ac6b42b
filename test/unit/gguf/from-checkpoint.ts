/** Turns a Hugging Face checkpoint directory into a GGUF file the way llama.cpp's converter does. For tests. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { TensorTypeName } from "../../../src/model/gguf/format.ts";
import { quantise } from "./quantise.ts";
import { bool, f32, type GgufSpec, type GgufTensorSpec, type GgufValue, i32s, text, texts, u32 } from "./write-gguf.ts";

interface StoredTensor {
  dtype: "F32" | "F16" | "BF16";
  shape: number[];
  bytes: Uint8Array;
}

const NAMES: readonly (readonly [RegExp, string])[] = [
  [/^model\.embed_tokens\./, "token_embd."],
  [/^model\.norm\./, "output_norm."],
  [/^lm_head\./, "output."],
  [/^model\.layers\.(\d+)\./, "blk.$1."],
  [/self_attn\.q_proj/, "attn_q"],
  [/self_attn\.k_proj/, "attn_k"],
  [/self_attn\.v_proj/, "attn_v"],
  [/self_attn\.o_proj/, "attn_output"],
  [/self_attn\.q_norm/, "attn_q_norm"],
  [/self_attn\.k_norm/, "attn_k_norm"],
  [/mlp\.(gate|up|down)_proj/, "ffn_$1"],
  [/input_layernorm/, "attn_norm"],
];

const LLAMA_NAMES: typeof NAMES = [[/post_attention_layernorm/, "ffn_norm"]];
const GEMMA_NAMES: typeof NAMES = [
  [/post_attention_layernorm/, "post_attention_norm"],
  [/pre_feedforward_layernorm/, "ffn_norm"],
  [/post_feedforward_layernorm/, "post_ffw_norm"],
];

/** model_type → GGUF architecture. */
const ARCHITECTURES: Readonly<Record<string, string>> = {
  llama: "llama",
  mistral: "llama",
  qwen2: "qwen2",
  qwen3: "qwen3",
  gemma3_text: "gemma3",
};

// biome-ignore lint/suspicious/noExplicitAny: config.json and tokenizer.json have whatever shape they have
type Json = any;

/**
 * A GGUF file's contents for a checkpoint with a byte-level tokenizer. `type` is that of the matrices ("keep": as
 * stored); vectors are F32, as converters write them.
 */
export function ggufFromCheckpoint(directory: string, type: TensorTypeName | "keep" = "keep"): GgufSpec {
  const config: Json = JSON.parse(readFileSync(join(directory, "config.json"), "utf8"));
  const architecture = ARCHITECTURES[config.model_type as string];
  if (!architecture) throw new Error(`the test writer does not know ${config.model_type}`);
  const tensors: GgufTensorSpec[] = [];
  for (const [name, stored] of readCheckpointTensors(directory)) {
    let values = toFloats(stored);
    if (architecture === "llama" && /[qk]_proj/.test(name)) {
      const heads = name.includes("q_proj") ? config.num_attention_heads : config.num_key_value_heads;
      values = permute(values, stored.shape[0]!, heads);
    }
    if (architecture === "gemma3" && name.endsWith("norm.weight")) values = values.map((value) => value + 1);
    const kept = type === "keep" ? stored.dtype : type;
    const written = stored.shape.length === 1 ? "F32" : kept;
    tensors.push({
      name: rename(name, architecture),
      type: written,
      shape: stored.shape,
      data: quantise(written, values),
    });
  }
  const rope = config.rope_parameters?.full_attention ?? config.rope_parameters ?? config.rope_scaling ?? {};
  const base = rope.rope_theta ?? config.rope_theta;
  if ((rope.rope_type ?? rope.type) === "llama3") tensors.push(ropeFactors(rope, base, config.head_dim));
  return {
    metadata: { ...modelMetadata(config, architecture, base), ...tokenizerMetadata(directory, config) },
    tensors,
  };
}

function rename(name: string, architecture: string): string {
  const rules = [...NAMES, ...(architecture === "gemma3" ? GEMMA_NAMES : LLAMA_NAMES)];
  return rules.reduce((renamed, [from, to]) => renamed.replace(from, to), name);
}

/** (heads, 2, d/2, rest) → (heads, d/2, 2, rest): llama.cpp's layout of q and k. */
export function permute(values: Float32Array, rows: number, heads: number): Float32Array {
  const width = values.length / rows;
  const dim = rows / heads;
  const out = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) {
    const head = Math.floor(row / dim);
    const within = row % dim;
    const to = head * dim + 2 * (within % (dim / 2)) + Math.floor(within / (dim / 2));
    out.set(values.subarray(row * width, (row + 1) * width), to * width);
  }
  return out;
}

/** The factors llama.cpp's converter computes for llama3 scaling. */
function ropeFactors(rope: Json, base: number, headDim: number): GgufTensorSpec {
  const factors = Float32Array.from({ length: headDim / 2 }, (_, i) => {
    const wavelength = 2 * Math.PI * base ** ((2 * i) / headDim);
    const context = rope.original_max_position_embeddings;
    if (wavelength < context / rope.high_freq_factor) return 1;
    if (wavelength > context / rope.low_freq_factor) return rope.factor;
    const smooth = (context / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
    return 1 / ((1 - smooth) / rope.factor + smooth);
  });
  return { name: "rope_freqs.weight", type: "F32", shape: [headDim / 2], data: new Uint8Array(factors.buffer) };
}

function modelMetadata(config: Json, architecture: string, base: number): Record<string, GgufValue> {
  const a = architecture;
  return {
    "general.architecture": text(a),
    "general.name": text("test"),
    [`${a}.block_count`]: u32(config.num_hidden_layers),
    [`${a}.context_length`]: u32(config.max_position_embeddings),
    [`${a}.embedding_length`]: u32(config.hidden_size),
    [`${a}.feed_forward_length`]: u32(config.intermediate_size),
    [`${a}.attention.head_count`]: u32(config.num_attention_heads),
    [`${a}.attention.head_count_kv`]: u32(config.num_key_value_heads),
    [`${a}.attention.layer_norm_rms_epsilon`]: f32(config.rms_norm_eps),
    [`${a}.rope.freq_base`]: f32(base),
    ...(config.head_dim
      ? { [`${a}.attention.key_length`]: u32(config.head_dim), [`${a}.attention.value_length`]: u32(config.head_dim) }
      : {}),
    ...(a === "gemma3"
      ? {
          "gemma3.attention.sliding_window": u32(config.sliding_window),
          "gemma3.attention.sliding_window_pattern": u32(config.layer_types.indexOf("full_attention") + 1),
        }
      : {}),
  };
}

function tokenizerMetadata(directory: string, config: Json): Record<string, GgufValue> {
  const tokenizer: Json = JSON.parse(readFileSync(join(directory, "tokenizer.json"), "utf8"));
  const template = join(directory, "chat_template.jinja");
  const tokens = Array.from({ length: config.vocab_size as number }, (_, id) => `[PAD${id}]`);
  const types = tokens.map(() => 5);
  for (const [token, id] of Object.entries(tokenizer.model.vocab as Record<string, number>)) {
    tokens[id] = token;
    types[id] = 1;
  }
  for (const added of tokenizer.added_tokens as { id: number; content: string; special: boolean }[]) {
    tokens[added.id] = added.content;
    types[added.id] = added.special ? 3 : 4;
  }
  const merges = tokenizer.model.merges as (string | [string, string])[];
  return {
    "tokenizer.ggml.model": text("gpt2"),
    "tokenizer.ggml.pre": text("qwen2"),
    "tokenizer.ggml.tokens": texts(tokens),
    "tokenizer.ggml.token_type": i32s(types),
    "tokenizer.ggml.merges": texts(merges.map((merge) => (typeof merge === "string" ? merge : merge.join(" ")))),
    "tokenizer.ggml.eos_token_id": u32(config.eos_token_id),
    "tokenizer.ggml.padding_token_id": u32(config.pad_token_id),
    "tokenizer.ggml.add_bos_token": bool(false),
    ...(existsSync(template) ? { "tokenizer.chat_template": text(readFileSync(template, "utf8")) } : {}),
  };
}

/** Tensors of a checkpoint directory, one file or sharded. */
export function readCheckpointTensors(directory: string): Map<string, StoredTensor> {
  const index = join(directory, "model.safetensors.index.json");
  const files = existsSync(index)
    ? [...new Set(Object.values(JSON.parse(readFileSync(index, "utf8")).weight_map as Record<string, string>))]
    : ["model.safetensors"];
  const tensors = new Map<string, StoredTensor>();
  for (const name of files) {
    const file = readFileSync(join(directory, name));
    const start = 8 + Number(file.readBigUInt64LE(0));
    const header: Json = JSON.parse(file.subarray(8, start).toString("utf8"));
    for (const [key, entry] of Object.entries<Json>(header)) {
      if (key === "__metadata__") continue;
      const [begin, end] = entry.data_offsets as [number, number];
      const bytes = new Uint8Array(file.subarray(start + begin, start + end));
      tensors.set(key, { dtype: entry.dtype, shape: entry.shape, bytes });
    }
  }
  return tensors;
}

export function toFloats(tensor: StoredTensor): Float32Array {
  const { bytes } = tensor;
  if (tensor.dtype === "F32") return new Float32Array(bytes.slice().buffer);
  const bits = new Uint16Array(bytes.slice().buffer);
  if (tensor.dtype === "BF16") return new Float32Array(Uint32Array.from(bits, (half) => half << 16).buffer);
  return Float32Array.from(bits, (half) => {
    const exponent = (half >> 10) & 31;
    const fraction = half & 1023;
    const magnitude = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
    return half & 0x8000 ? -magnitude : magnitude;
  });
}
