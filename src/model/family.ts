/**
 * The model families as data. A family says where its config.json and its tensors differ from plain llama; everything
 * else (graph, engine, checks) follows from `ModelConfig`. A new family is one entry here and one golden directory.
 */
import type { Family } from "./checkpoint.ts";

export interface FamilySpec {
  family: Family;
  /** Biases of q/k/v and of o: always, never, or as `attention_bias` says. */
  qkvBias: "always" | "never" | "attention_bias";
  oBias: "never" | "attention_bias";
  /** Whether `mlp_bias` exists. */
  mlpBias: "never" | "mlp_bias";
  qkNorm: boolean;
  gemma: boolean;
  /** What an absent `tie_word_embeddings` means (the default of the family's class in Transformers). */
  tiedByDefault: boolean;
  /** How layers get their windows: none; `sliding_window` for all; qwen's rule; gemma's pattern. */
  windows: "none" | "all" | "qwen" | "pattern";
  /** Key and default of the activation. */
  activation: readonly [key: string, fallback: string];
  /** Fewest bits per weight that precision "auto" goes down to; a smaller precision may still be asked for by name. */
  leastAutoBits: 8 | 4;
  /** Defaults of the family's class in Transformers, for keys that published configs really leave out. */
  defaults: Readonly<Record<string, number>>;
}

const LLAMA: FamilySpec = {
  family: "llama",
  qkvBias: "attention_bias",
  oBias: "attention_bias",
  mlpBias: "mlp_bias",
  qkNorm: false,
  gemma: false,
  tiedByDefault: false,
  windows: "none",
  activation: ["hidden_act", "silu"],
  leastAutoBits: 4,
  defaults: { rms_norm_eps: 1e-6, rope_theta: 10_000 },
};

const MISTRAL: FamilySpec = {
  ...LLAMA,
  family: "mistral",
  qkvBias: "never",
  oBias: "never",
  mlpBias: "never",
  windows: "all",
  defaults: { ...LLAMA.defaults, num_key_value_heads: 8, sliding_window: 4096 },
};

const QWEN2: FamilySpec = {
  ...LLAMA,
  family: "qwen2",
  qkvBias: "always",
  oBias: "never",
  mlpBias: "never",
  windows: "qwen",
  defaults: { ...LLAMA.defaults, num_key_value_heads: 32, sliding_window: 4096, max_window_layers: 28 },
};

const QWEN3: FamilySpec = {
  ...QWEN2,
  family: "qwen3",
  qkvBias: "attention_bias",
  oBias: "attention_bias",
  qkNorm: true,
  defaults: { ...QWEN2.defaults, head_dim: 128 },
};

/** The text part of gemma3: published multimodal configs leave out whatever equals the class default. */
const GEMMA3: FamilySpec = {
  ...LLAMA,
  family: "gemma3",
  mlpBias: "never",
  qkNorm: true,
  gemma: true,
  tiedByDefault: true,
  windows: "pattern",
  activation: ["hidden_activation", "gelu_pytorch_tanh"],
  // Its makers publish checkpoints trained for 4 bits because plain rounding costs it too much (their word, not measured here).
  leastAutoBits: 8,
  defaults: {
    vocab_size: 262_208,
    hidden_size: 2304,
    intermediate_size: 9216,
    num_hidden_layers: 26,
    num_attention_heads: 8,
    num_key_value_heads: 4,
    head_dim: 256,
    max_position_embeddings: 131_072,
    rms_norm_eps: 1e-6,
    query_pre_attn_scalar: 256,
    sliding_window: 4096,
    sliding_window_pattern: 6,
    rope_theta: 1_000_000,
    rope_local_base_freq: 10_000,
  },
};

/** `model_type` of config.json → family. */
export const FAMILIES: Readonly<Record<string, FamilySpec>> = {
  llama: LLAMA,
  mistral: MISTRAL,
  qwen2: QWEN2,
  qwen3: QWEN3,
  gemma3_text: GEMMA3,
  gemma3: GEMMA3,
};

export function leastAutoBits(family: Family): 8 | 4 {
  return Object.values(FAMILIES).find((spec) => spec.family === family)?.leastAutoBits ?? 8;
}
