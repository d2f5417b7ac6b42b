/**
 * What the rest of the program knows of a model on disk. `model/` produces these from a Hugging Face directory (a GGUF
 * file and a hub id become such a directory first); `graph/` and `engine/` consume them. Plain data: it crosses threads.
 */

export type Family = "llama" | "mistral" | "qwen2" | "qwen3" | "gemma3";

/** Numbers of the architecture, one shape whichever layout the config.json has. */
export interface ModelConfig {
  family: Family;
  vocabSize: number;
  hiddenSize: number;
  intermediateSize: number;
  layers: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  rmsNormEps: number;
  /** "silu" or "gelu_tanh" */
  activation: "silu" | "gelu_tanh";
  /** Biases of q/k/v, of o, and of the MLP. */
  qkvBias: boolean;
  oBias: boolean;
  mlpBias: boolean;
  /** RMSNorm on q and k per head (qwen3, gemma3). */
  qkNorm: boolean;
  tiedHead: boolean;
  maxPositions: number;
  /** Per layer; all equal outside gemma3. */
  layerKinds: readonly LayerKind[];
  /** The distinct RoPE tables; a layer names one by index. */
  ropes: readonly RopeConfig[];
  /** Multiplies q·k; 1/sqrt(headDim) unless the family says otherwise (gemma3: query_pre_attn_scalar). */
  attentionScale: number;
  /** gemma: embeddings are multiplied by sqrt(hidden), RMSNorm weights are stored as w − 1, norms around attention and MLP. */
  gemmaNorms: boolean;
  embeddingScale: number;
}

export interface LayerKind {
  /** Index into `ropes`. */
  rope: number;
  /** Attend only to the last `window` positions (the current one included); null = all. */
  window: number | null;
}

export interface RopeConfig {
  /** (headDim / 2) inverse frequencies in float32, scaling (llama3, linear) already applied. */
  inverseFrequencies: Float32Array;
}

export type Dtype =
  | "F32"
  | "F16"
  | "BF16"
  | "U8"
  | "I8"
  | "I32"
  | "I64"
  | "BOOL"
  | "F64"
  | "U16"
  | "I16"
  | "U32"
  | "U64"
  | "F8_E4M3"
  | "F8_E5M2";

/** Where a tensor's bytes lie: resolved absolute path, byte offset from the start of the file, length in bytes. */
export interface TensorLocation {
  path: string;
  offset: number;
  bytes: number;
  dtype: Dtype;
  shape: readonly number[];
}

/** A validated checkpoint: every tensor the architecture needs is present with the right shape and dtype. */
export interface Checkpoint {
  /** Resolved directory. */
  directory: string;
  config: ModelConfig;
  /** Hugging Face names: `model.layers.0.self_attn.q_proj.weight`, … */
  tensors: Readonly<Record<string, TensorLocation>>;
  /** Total number of weights (a tied head counted once). */
  parameters: number;
  /** Bytes of the weight files. */
  weightBytes: number;
  /** sha256 over the weight files' headers and sizes plus config (cheap identity; stable across copies). `sha256:…` */
  weightsHash: string;
  /** Ids that end a turn, from generation_config.json or config.json. */
  eosIds: readonly number[];
  /** Converted from a GGUF file: the type of most of its weights (`Q4_K`, …), where the conversion noted it. */
  ggufType?: string;
}

/** A PEFT LoRA adapter on disk, validated against a checkpoint. */
export interface AdapterFiles {
  directory: string;
  /** Content hash; two directories with equal bytes share it. `sha256:…` */
  hash: string;
  /** Multiplies B·A: alpha / r, or alpha / sqrt(r) with rsLoRA. One per target, since patterns may differ. */
  targets: readonly AdapterTarget[];
}

export interface AdapterTarget {
  layer: number;
  /** `q_proj k_proj v_proj o_proj gate_proj up_proj down_proj` */
  module: string;
  rank: number;
  scale: number;
  /** (rank, in) */
  a: TensorLocation;
  /** (out, rank) */
  b: TensorLocation;
}
