/** config.json (either layout) → `ModelConfig`. Whatever would change the numbers and is not built is refused by name. */

import { fail } from "../errors.ts";
import type { LayerKind, ModelConfig, RopeConfig } from "./checkpoint.ts";
import { FAMILIES, type FamilySpec } from "./family.ts";
import { type FieldReader, fieldReader, isObject, type JsonObject, show } from "./json.ts";
import { inverseFrequencies } from "./rope.ts";
import { refuseUnsupported } from "./unsupported.ts";

export interface ParsedConfig {
  /** `tiedHead` is what the config says, or the family's default; the weights may still decide (open.ts). */
  config: ModelConfig;
  /** What `tie_word_embeddings` says; null when the key is absent. */
  tieDeclared: boolean | null;
  eosIds: number[];
}

/** A deeper stack than any published model; bounds the work a hostile config can ask for. */
const MAX_LAYERS = 1024;
/** Twice gemma's 256, with room; cos/sin tables grow with it. */
const MAX_HEAD_DIM = 2048;

const ACTIVATIONS: Readonly<Record<string, ModelConfig["activation"]>> = {
  silu: "silu",
  swish: "silu",
  gelu_pytorch_tanh: "gelu_tanh",
  gelu_new: "gelu_tanh",
};

/**
 * Errors: `unsupported_architecture` and `unsupported_checkpoint` (by name and reason), `invalid_checkpoint`
 * (naming the field).
 */
export function parseConfig(raw: JsonObject, generationConfig?: JsonObject | null): ParsedConfig {
  const spec = familyOf(raw);
  const merged = textPart(raw);
  refuseUnsupported(merged, spec);
  const fields = fieldReader(merged, "config.json");
  const sizes = readSizes(fields, spec);
  const { layerKinds, ropes } = readLayers(fields, spec, sizes);
  const attentionBias = spec.qkvBias === "attention_bias" && fields.boolean("attention_bias", false);
  const tieDeclared = fields.has("tie_word_embeddings") ? fields.boolean("tie_word_embeddings", false) : null;
  return {
    config: {
      family: spec.family,
      ...sizes,
      rmsNormEps: fields.number("rms_norm_eps", { fallback: spec.defaults.rms_norm_eps }),
      activation: readActivation(fields, spec),
      qkvBias: spec.qkvBias === "always" || attentionBias,
      oBias: spec.oBias === "attention_bias" && attentionBias,
      mlpBias: spec.mlpBias === "mlp_bias" && fields.boolean("mlp_bias", false),
      qkNorm: spec.qkNorm,
      tiedHead: tieDeclared ?? spec.tiedByDefault,
      layerKinds,
      ropes,
      attentionScale:
        1 /
        Math.sqrt(
          spec.gemma
            ? fields.number("query_pre_attn_scalar", { fallback: spec.defaults.query_pre_attn_scalar })
            : sizes.headDim,
        ),
      gemmaNorms: spec.gemma,
      embeddingScale: spec.gemma ? Math.fround(Math.sqrt(sizes.hiddenSize)) : 1,
    },
    tieDeclared,
    eosIds: readEosIds([generationConfig, raw, merged], sizes.vocabSize),
  };
}

function familyOf(raw: JsonObject): FamilySpec {
  const type = raw.model_type;
  if (typeof type !== "string") {
    throw fail("invalid_checkpoint", "config.json: model_type is missing; it names the architecture");
  }
  const spec = Object.hasOwn(FAMILIES, type) ? FAMILIES[type] : undefined;
  if (spec === undefined) {
    const known = Object.keys(FAMILIES).join(", ");
    throw fail("unsupported_architecture", `model_type ${show(type)} is not supported; supported are ${known}`);
  }
  return spec;
}

/** A multimodal gemma3 keeps its language model under `text_config`; top-level keys fill in for missing ones. */
function textPart(raw: JsonObject): JsonObject {
  if (raw.model_type !== "gemma3" || !isObject(raw.text_config)) return raw;
  const { text_config: text, vision_config: _vision, ...outer } = raw;
  return { ...outer, ...text };
}

type Sizes = Pick<
  ModelConfig,
  "vocabSize" | "hiddenSize" | "intermediateSize" | "layers" | "heads" | "kvHeads" | "headDim" | "maxPositions"
>;

function readSizes(fields: FieldReader, spec: FamilySpec): Sizes {
  const size = (key: string, max?: number) =>
    fields.integer(key, { fallback: spec.defaults[key], ...(max === undefined ? {} : { max }) });
  const hiddenSize = size("hidden_size");
  const heads = size("num_attention_heads");
  // An explicit null means as many as heads; the family's default applies to an absent key.
  const kvDefault = fields.declared("num_key_value_heads") ? undefined : spec.defaults.num_key_value_heads;
  const kvHeads = fields.integer("num_key_value_heads", { fallback: kvDefault ?? heads });
  if (heads % kvHeads !== 0) {
    throw fields.wrong("num_key_value_heads", `is ${kvHeads}; it must divide num_attention_heads (${heads})`);
  }
  const derived = hiddenSize / heads;
  const headDim = fields.integer("head_dim", { fallback: spec.defaults.head_dim ?? derived, max: MAX_HEAD_DIM });
  if (headDim % 2 !== 0) throw fields.wrong("head_dim", `is ${headDim}; rotary embeddings need an even number`);
  return {
    vocabSize: size("vocab_size"),
    hiddenSize,
    intermediateSize: size("intermediate_size"),
    layers: size("num_hidden_layers", MAX_LAYERS),
    heads,
    kvHeads,
    headDim,
    maxPositions: size("max_position_embeddings"),
  };
}

function readActivation(fields: FieldReader, spec: FamilySpec): ModelConfig["activation"] {
  const [key, fallback] = spec.activation;
  const name = fields.string(key, fallback);
  const activation = Object.hasOwn(ACTIVATIONS, name) ? ACTIVATIONS[name] : undefined;
  if (activation === undefined) {
    throw fail("unsupported_architecture", `${key} ${show(name)} is not supported; silu and gelu_pytorch_tanh are`);
  }
  return activation;
}

/** Which layers look at all positions and which at a window, and the RoPE table of each. */
function readLayers(
  fields: FieldReader,
  spec: FamilySpec,
  sizes: Sizes,
): { layerKinds: LayerKind[]; ropes: RopeConfig[] } {
  const sliding = slidingLayers(fields, spec, sizes.layers);
  const width = sliding.includes(true) ? windowWidth(fields, spec, sizes.maxPositions) : null;
  if (!spec.gemma) {
    const rope = { inverseFrequencies: ropeTable(fields, spec, sizes.headDim) };
    return { ropes: [rope], layerKinds: sliding.map((slides) => ({ rope: 0, window: slides ? width : null })) };
  }
  const full = { inverseFrequencies: gemmaRopeTable(fields, spec, "full_attention", sizes.headDim) };
  const local = { inverseFrequencies: gemmaRopeTable(fields, spec, "sliding_attention", sizes.headDim) };
  return {
    ropes: [full, local],
    layerKinds: sliding.map((slides) => (slides ? { rope: 1, window: width } : { rope: 0, window: null })),
  };
}

function windowWidth(fields: FieldReader, spec: FamilySpec, maxPositions: number): number | null {
  // Defaults apply to an absent key; an explicit null contradicts the layers that ask for a window.
  if (fields.declared("sliding_window") && !fields.has("sliding_window")) {
    throw fields.wrong("sliding_window", "is null although some layers use sliding attention");
  }
  const width = fields.integer("sliding_window", { fallback: spec.defaults.sliding_window });
  // A window no shorter than the longest sequence masks nothing.
  return width >= maxPositions ? null : width;
}

function slidingLayers(fields: FieldReader, spec: FamilySpec, layers: number): boolean[] {
  const every = (slides: boolean) => Array.from({ length: layers }, () => slides);
  const types = fields.raw("layer_types");
  switch (spec.windows) {
    case "none":
      if (types !== undefined && layerTypes(fields, types, layers).includes(true)) {
        throw fail("unsupported_architecture", `sliding attention is not supported for ${spec.family}`);
      }
      return every(false);
    case "all":
      if (types !== undefined && new Set(layerTypes(fields, types, layers)).size > 1) {
        throw fail("unsupported_architecture", `layer_types that alternate are not supported for ${spec.family}`);
      }
      // An absent key means the default width, an explicit null no window.
      return every(fields.has("sliding_window") || !fields.declared("sliding_window"));
    case "qwen": {
      const enabled = fields.boolean("use_sliding_window", false);
      if (types !== undefined) {
        const sliding = layerTypes(fields, types, layers);
        if (!enabled && sliding.includes(true)) {
          throw fields.wrong("layer_types", "asks for sliding attention but use_sliding_window is not true");
        }
        return sliding;
      }
      if (!enabled || (fields.declared("sliding_window") && !fields.has("sliding_window"))) return every(false);
      const from = fields.count("max_window_layers", spec.defaults.max_window_layers);
      return Array.from({ length: layers }, (_, i) => i >= from);
    }
    case "pattern": {
      if (types !== undefined) return layerTypes(fields, types, layers);
      const key = fields.has("sliding_window_pattern") ? "sliding_window_pattern" : "_sliding_window_pattern";
      const pattern = fields.integer(key, { fallback: spec.defaults.sliding_window_pattern });
      return Array.from({ length: layers }, (_, i) => (i + 1) % pattern !== 0);
    }
  }
}

function layerTypes(fields: FieldReader, types: unknown, layers: number): boolean[] {
  if (!Array.isArray(types) || types.length !== layers) {
    throw fields.wrong("layer_types", `must be a list of ${layers} entries, one per layer`);
  }
  return types.map((type: unknown) => {
    if (type === "full_attention") return false;
    if (type === "sliding_attention") return true;
    throw fail(
      "unsupported_architecture",
      `layer_types contains ${show(type)}; full_attention and sliding_attention are supported`,
    );
  });
}

/**
 * The older layout has `rope_theta` and `rope_scaling` at top level, the newer has both in `rope_parameters`. A file
 * with both follows Transformers: `rope_scaling` goes before `rope_parameters`.
 */
function ropeTable(fields: FieldReader, spec: FamilySpec, headDim: number): Float32Array {
  const newer = fields.object("rope_parameters");
  const rope = fields.object("rope_scaling") ?? newer;
  if (newer !== null && NESTED_ROPE.some((type) => newer.has(type))) {
    throw fail("unsupported_architecture", `rope_parameters per attention type are not supported for ${spec.family}`);
  }
  const holder = [rope, fields, newer].find((reader) => reader?.has("rope_theta"));
  return inverseFrequencies(
    rope,
    (holder ?? fields).number("rope_theta", { fallback: spec.defaults.rope_theta }),
    headDim,
  );
}

const NESTED_ROPE = ["full_attention", "sliding_attention"] as const;

/**
 * gemma3 has two tables: the newer layout nests them by attention type, the older has `rope_theta` with `rope_scaling`
 * for the layers with full attention and `rope_local_base_freq` for the sliding ones.
 */
function gemmaRopeTable(fields: FieldReader, spec: FamilySpec, type: (typeof NESTED_ROPE)[number], headDim: number) {
  const newer = fields.object("rope_parameters");
  if (newer !== null && !NESTED_ROPE.some((key) => newer.has(key))) {
    throw fields.wrong("rope_parameters", `must have the entries ${NESTED_ROPE.join(" and ")}`);
  }
  const nested = newer?.object(type) ?? null;
  const scaling = type === "full_attention" ? fields.object("rope_scaling") : null;
  const key = type === "full_attention" ? "rope_theta" : "rope_local_base_freq";
  const theta = nested?.has("rope_theta")
    ? nested.number("rope_theta")
    : fields.number(key, { fallback: spec.defaults[key] });
  return inverseFrequencies(scaling ?? nested, theta, headDim);
}

/**
 * An id or a list; the first source that has the key decides: generation_config.json, config.json, its text part.
 * Ids that the vocabulary lacks never occur and are dropped.
 */
export function readEosIds(sources: readonly (JsonObject | null | undefined)[], vocabSize: number): number[] {
  const value = sources.map((source) => source?.eos_token_id ?? null).find((id) => id !== null) ?? [];
  const ids: unknown[] = Array.isArray(value) ? value : [value];
  for (const id of ids) {
    if (!Number.isSafeInteger(id)) {
      throw fail("invalid_checkpoint", `eos_token_id contains ${show(id)}; token ids are integers`);
    }
  }
  return [...new Set(ids as number[])].filter((id) => id >= 0 && id < vocabSize);
}
