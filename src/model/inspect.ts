/** What `preceptor models inspect` prints: facts about a checkpoint directory, none of them from reading whole weights. */
import type { Checkpoint, Dtype } from "./checkpoint.ts";
import { isObject, type JsonObject, readJson } from "./json.ts";
import { type OpenCheckpointOptions, openCheckpoint } from "./open.ts";
import { type ModelDirectory, openDirectory } from "./paths.ts";
import { TEMPER_KEY } from "./temper.ts";

export interface ModelInspection {
  directory: string;
  family: string;
  model_type: string;
  vocab_size: number;
  hidden_size: number;
  intermediate_size: number;
  layers: number;
  heads: number;
  kv_heads: number;
  head_dim: number;
  tied_head: boolean;
  /** The keys of config.json that RoPE was computed from. */
  rope: JsonObject;
  /** Width and number of layers with sliding attention, or null. */
  sliding_window: { width: number; layers: number } | null;
  context_length: number;
  eos_ids: readonly number[];
  parameters: number;
  /** Tensors per dtype. */
  dtypes: Partial<Record<Dtype, number>>;
  weight_bytes: number;
  weights_hash: string;
  /** Type of most weights of the GGUF file that this was converted from, or null. */
  gguf_type: string | null;
  tokenizer: boolean;
  chat_template: boolean;
  /** The temperature that `preceptor models temper` built in, or null. */
  tempered: number | null;
  /** Bytes at precision fp32: the weights, and what the cache takes per token and for one full context. */
  memory_fp32: { weights: number; cache_per_token: number; cache_full_context: number };
}

/** Errors: those of `openCheckpoint`. */
export async function inspectModel(directory: string, options: OpenCheckpointOptions = {}): Promise<ModelInspection> {
  const checkpoint = await openCheckpoint(directory, options);
  const dir = await openDirectory(directory, options.allowedRoots);
  const { value: raw } = await readJson(dir, "config.json");
  const { config } = checkpoint;
  const windows = config.layerKinds.flatMap(({ window }) => (window === null ? [] : [window]));
  const temper = raw[TEMPER_KEY];
  return {
    directory: checkpoint.directory,
    family: config.family,
    model_type: String(raw.model_type),
    vocab_size: config.vocabSize,
    hidden_size: config.hiddenSize,
    intermediate_size: config.intermediateSize,
    layers: config.layers,
    heads: config.heads,
    kv_heads: config.kvHeads,
    head_dim: config.headDim,
    tied_head: config.tiedHead,
    rope: ropeKeys(raw),
    sliding_window: windows[0] === undefined ? null : { width: windows[0], layers: windows.length },
    context_length: config.maxPositions,
    eos_ids: checkpoint.eosIds,
    parameters: checkpoint.parameters,
    dtypes: countDtypes(checkpoint),
    weight_bytes: checkpoint.weightBytes,
    weights_hash: checkpoint.weightsHash,
    gguf_type: checkpoint.ggufType ?? null,
    tokenizer: dir.entries.has("tokenizer.json"),
    chat_template: await hasChatTemplate(dir),
    tempered: typeof temper === "number" ? temper : null,
    memory_fp32: estimateMemory(checkpoint),
  };
}

const ROPE_KEYS = ["rope_parameters", "rope_theta", "rope_scaling", "rope_local_base_freq"];

function ropeKeys(raw: JsonObject): JsonObject {
  const text = isObject(raw.text_config) ? { ...raw, ...raw.text_config } : raw;
  return Object.fromEntries(ROPE_KEYS.flatMap((key) => (text[key] == null ? [] : [[key, text[key]]])));
}

function countDtypes({ tensors }: Checkpoint): Partial<Record<Dtype, number>> {
  const counts: Partial<Record<Dtype, number>> = {};
  for (const { dtype } of Object.values(tensors)) counts[dtype] = (counts[dtype] ?? 0) + 1;
  return counts;
}

/** A template in its own file, or (older) in tokenizer_config.json. */
async function hasChatTemplate(dir: ModelDirectory): Promise<boolean> {
  if (dir.entries.has("chat_template.jinja") || dir.entries.has("chat_template.json")) return true;
  if (!dir.entries.has("tokenizer_config.json")) return false;
  const { value } = await readJson(dir, "tokenizer_config.json", "invalid_tokenizer");
  return value.chat_template !== undefined && value.chat_template !== null;
}

const FP32_BYTES = 4;

function estimateMemory({ config, parameters }: Checkpoint): ModelInspection["memory_fp32"] {
  // Keys and values of every layer.
  const perToken = 2 * config.layers * config.kvHeads * config.headDim * FP32_BYTES;
  return {
    weights: parameters * FP32_BYTES,
    cache_per_token: perToken,
    cache_full_context: perToken * config.maxPositions,
  };
}
