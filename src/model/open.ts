/** A Hugging Face checkpoint directory → a validated `Checkpoint`. Reads headers and samples, never whole weights. */
import { fail } from "../errors.ts";
import type { Checkpoint, ModelConfig, TensorLocation } from "./checkpoint.ts";
import { type ParsedConfig, parseConfig } from "./config.ts";
import { isFloatDtype } from "./dtype.ts";
import { notedType } from "./gguf/dominant-type.ts";
import { hashWeights, sameSamples } from "./hash.ts";
import { type JsonObject, readJson } from "./json.ts";
import { type ModelDirectory, openDirectory } from "./paths.ts";
import { readWeightFiles } from "./shards.ts";
import { expectedTensors } from "./tensors.ts";

export interface OpenCheckpointOptions {
  /**
   * Directories below which every file must lie after resolving links. Default: the directory itself, and for a
   * snapshot of the hub cache the repository's folder.
   */
  allowedRoots?: readonly string[];
}

/**
 * Errors: `model_source_not_found`, `model_source_not_allowed`, `unsupported_architecture`, `unsupported_checkpoint`,
 * `invalid_checkpoint`; each message names the file, field or tensor.
 */
export async function openCheckpoint(directory: string, options: OpenCheckpointOptions = {}): Promise<Checkpoint> {
  const dir = await openDirectory(directory, options.allowedRoots);
  if (!dir.entries.has("config.json")) throw noConfig(dir);
  const config = await readJson(dir, "config.json");
  const parsed = parseConfig(config.value, await readGenerationConfig(dir));
  const weights = await readWeightFiles(dir);
  const found = canonicalNames(weights.tensors);
  const model = resolveTie(parsed, found);
  const tensors = requireTensors(model, found);
  await requireTrueTie(model, found);
  const ggufType = notedType(config.value);
  return {
    directory: dir.path,
    config: model,
    tensors,
    parameters: Object.values(tensors).reduce((sum, { shape }) => sum + elements(shape), 0),
    weightBytes: weights.bytes,
    weightsHash: await hashWeights(weights.files, config.bytes),
    eosIds: parsed.eosIds,
    ...(ggufType === undefined ? {} : { ggufType }),
  };
}

function noConfig(dir: ModelDirectory): Error {
  if (dir.entries.has("adapter_config.json")) {
    return fail(
      "invalid_checkpoint",
      `${dir.name} holds an adapter, not a model; pass it as adapter, with its base as model`,
    );
  }
  const gguf = [...dir.entries].find((name) => name.endsWith(".gguf"));
  if (gguf !== undefined)
    return fail("invalid_checkpoint", `${dir.name} has no config.json; for GGUF give the file itself: ${gguf}`);
  return fail("invalid_checkpoint", `${dir.name} has no config.json; give the directory of a Hugging Face checkpoint`);
}

async function readGenerationConfig(dir: ModelDirectory): Promise<JsonObject | null> {
  if (!dir.entries.has("generation_config.json")) return null;
  return (await readJson(dir, "generation_config.json")).value;
}

function elements(shape: readonly number[]): number {
  return shape.reduce((product, n) => product * n, 1);
}

/**
 * Where the language model's tensors begin: plain; the two layouts of multimodal gemma3; a base model saved alone.
 * The first whose embedding is there counts.
 */
const LAYOUTS: readonly { body: string; head: string }[] = [
  { body: "model.", head: "lm_head." },
  { body: "model.language_model.", head: "lm_head." },
  { body: "language_model.model.", head: "language_model.lm_head." },
  { body: "", head: "lm_head." },
];

/** Tensors of the language model under their plain names (`model.…`, `lm_head.…`). */
type FoundTensors = ReadonlyMap<string, TensorLocation>;

function canonicalNames(all: FoundTensors): FoundTensors {
  const layout = LAYOUTS.find(({ body }) => all.has(`${body}embed_tokens.weight`));
  if (layout === undefined) {
    throw fail(
      "invalid_checkpoint",
      "the weights lack model.embed_tokens.weight; is this a language model's checkpoint?",
    );
  }
  const tensors = new Map<string, TensorLocation>();
  for (const [name, location] of all) {
    if (name.startsWith(layout.head)) tensors.set(`lm_head.${name.slice(layout.head.length)}`, location);
    else if (name.startsWith(layout.body)) tensors.set(`model.${name.slice(layout.body.length)}`, location);
  }
  return tensors;
}

/** A head that the file lacks is the embedding, unless the config says otherwise. */
function resolveTie({ config, tieDeclared }: ParsedConfig, tensors: FoundTensors): ModelConfig {
  if (config.tiedHead || tensors.has("lm_head.weight")) return config;
  if (tieDeclared === false) {
    throw fail(
      "invalid_checkpoint",
      "config.json says tie_word_embeddings: false but the weights lack lm_head.weight; one of the two is wrong",
    );
  }
  return { ...config, tiedHead: true };
}

/**
 * A stored head beside a tied one is a copy of the embedding. Where it is not, programs disagree on which of the two
 * is meant.
 */
async function requireTrueTie(config: ModelConfig, tensors: FoundTensors): Promise<void> {
  const head = tensors.get("lm_head.weight");
  const embedding = tensors.get("model.embed_tokens.weight");
  if (!config.tiedHead || head === undefined || embedding === undefined || head.dtype !== embedding.dtype) return;
  if (head.bytes === embedding.bytes && (await sameSamples(head, embedding))) return;
  throw fail(
    "invalid_checkpoint",
    "the head is tied to the embedding by config.json, but lm_head.weight differs from model.embed_tokens.weight; set tie_word_embeddings to false or remove lm_head.weight",
  );
}

function requireTensors(config: ModelConfig, tensors: FoundTensors): Record<string, TensorLocation> {
  const expected = expectedTensors(config);
  const result: Record<string, TensorLocation> = {};
  for (const [name, shape] of expected) {
    const location = tensors.get(name);
    if (location === undefined) {
      refuseQuantised(tensors);
      throw fail(
        "invalid_checkpoint",
        `tensor ${name} of shape [${shape.join(", ")}] is needed by config.json but missing from the weights`,
      );
    }
    if (location.shape.length !== shape.length || location.shape.some((n, i) => n !== shape[i])) {
      throw fail(
        "invalid_checkpoint",
        `tensor ${name} has shape [${location.shape.join(", ")}] but config.json asks for [${shape.join(", ")}]`,
      );
    }
    if (!isFloatDtype(location.dtype)) {
      throw fail("unsupported_checkpoint", `tensor ${name} is ${location.dtype}; weights must be F32, F16 or BF16`);
    }
    result[name] = location;
  }
  refuseExtras(tensors, expected);
  return result;
}

/** Buffers that old checkpoints carry along and that follow from the config. */
const DERIVED = /(^|\.)(inv_freq|masked_bias|rotary_emb\.[^.]+|attn\.bias|cos_cached|sin_cached|position_ids)$/;
const QUANTISED = /\.(qweight|qzeros|g_idx|scales|weight_scale(_inv)?|weight_packed|absmax|quant_state.*|SCB)$/;

function refuseQuantised(tensors: FoundTensors): void {
  const name = [...tensors.keys()].find((key) => QUANTISED.test(key));
  if (name !== undefined) {
    throw fail(
      "unsupported_checkpoint",
      `tensor ${name} belongs to quantised weights; use the original checkpoint or a GGUF file`,
    );
  }
}

/** A tensor of the language model that nobody reads would be a silent change of the numbers. */
function refuseExtras(tensors: FoundTensors, expected: ReadonlyMap<string, readonly number[]>): void {
  refuseQuantised(tensors);
  for (const [name, { shape }] of tensors) {
    const relevant = /^(model\.(layers|norm|embed_tokens)|lm_head)\./.test(name) && name !== "lm_head.weight";
    if (relevant && !expected.has(name) && !DERIVED.test(name)) {
      throw fail(
        "invalid_checkpoint",
        `the weights have ${name} of shape [${shape.join(", ")}], which config.json does not ask for; leaving it out would change the results`,
      );
    }
  }
}
