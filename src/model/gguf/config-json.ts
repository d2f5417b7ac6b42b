import type { Architecture } from "./architecture.ts";
import { dominantType, GGUF_TYPE_KEY } from "./dominant-type.ts";
import { metadataFields, shortestFloat32 } from "./fields.ts";
import type { GgufFile } from "./reader.ts";
import type { RopeScaling } from "./rope-scaling.ts";

/** gemma3 alternates five sliding layers and a full one; llama.cpp fixes this and the base of the sliding ones. */
const GEMMA3_PATTERN = 6;
const GEMMA3_LOCAL_BASE = 10_000;

export interface TokenIds {
  bos: number | undefined;
  /** First the tokenizer's end of text or turn, then every other id that ends a turn. */
  eos: readonly number[];
  pad: number | undefined;
}

/** config.json as Transformers writes it (the older layout, which every reader of checkpoints understands). */
export function buildConfig(
  file: GgufFile,
  a: Architecture,
  rope: RopeScaling,
  ids: TokenIds,
): Record<string, unknown> {
  const fields = metadataFields(file);
  return {
    architectures: [a.className],
    model_type: a.modelType,
    vocab_size: a.vocab,
    hidden_size: a.hidden,
    intermediate_size: a.intermediate,
    num_hidden_layers: a.layers,
    num_attention_heads: a.heads,
    num_key_value_heads: a.kvHeads,
    head_dim: a.headDim,
    max_position_embeddings: a.contextLength,
    rms_norm_eps: shortestFloat32(fields.requiredNumber(`${a.name}.attention.layer_norm_rms_epsilon`)),
    rope_theta: shortestFloat32(fields.number(`${a.name}.rope.freq_base`) ?? (a.gemmaNorms ? 1_000_000 : 10_000)),
    ...(rope ? { rope_scaling: rope } : {}),
    tie_word_embeddings: a.tiedHead,
    bos_token_id: ids.bos ?? null,
    eos_token_id: ids.eos[0] ?? null,
    pad_token_id: ids.pad ?? null,
    torch_dtype: "float32",
    ...familyFields(file, a),
    [GGUF_TYPE_KEY]: dominantType(file),
  };
}

function familyFields(file: GgufFile, a: Architecture): Record<string, unknown> {
  const fields = metadataFields(file);
  switch (a.name) {
    case "llama":
      return { hidden_act: "silu", attention_bias: a.attentionBias, mlp_bias: a.mlpBias };
    case "gemma3":
      return {
        hidden_activation: "gelu_pytorch_tanh",
        attention_bias: false,
        sliding_window: fields.requiredSize("gemma3.attention.sliding_window"),
        sliding_window_pattern: fields.size("gemma3.attention.sliding_window_pattern") ?? GEMMA3_PATTERN,
        rope_local_base_freq: shortestFloat32(fields.number("gemma3.rope.freq_base_swa") ?? GEMMA3_LOCAL_BASE),
        // The published sizes use the head's width, except 27B, whose converter notes hidden / heads.
        query_pre_attn_scalar: a.layers === 62 ? a.hidden / a.heads : a.headDim,
      };
    case "qwen3":
      return { hidden_act: "silu", attention_bias: a.attentionBias, use_sliding_window: false };
    default:
      return { hidden_act: "silu", use_sliding_window: false };
  }
}
