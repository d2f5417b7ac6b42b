/** What a config.json may ask for that would change the numbers and is not built: refused by name and reason. */
import { type ErrorCode, fail } from "../errors.ts";
import type { FamilySpec } from "./family.ts";
import { isObject, type JsonObject, show } from "./json.ts";

interface Refusal {
  keys: readonly string[];
  /** True when this value asks for something that is not built. */
  refuses: (value: unknown, spec: FamilySpec) => boolean;
  code: ErrorCode;
  reason: string;
}

const isSet = (value: unknown): boolean => value !== false && value !== 0;
const isNotOne = (value: unknown): boolean => value !== 1;

const REFUSALS: readonly Refusal[] = [
  {
    keys: ["quantization_config", "compression_config"],
    refuses: isSet,
    code: "unsupported_checkpoint",
    reason:
      "the weights are quantised; use the original bf16, f16 or f32 checkpoint, or a GGUF file, and set precision",
  },
  {
    keys: ["num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size", "num_experts_per_tok"],
    refuses: isSet,
    code: "unsupported_architecture",
    reason: "mixtures of experts are not supported",
  },
  {
    keys: ["attn_logit_softcapping", "final_logit_softcapping", "logits_soft_cap"],
    refuses: isSet,
    code: "unsupported_architecture",
    reason: "soft-capped logits are not supported",
  },
  {
    keys: ["partial_rotary_factor", "rotary_pct", "rope_ratio"],
    refuses: isNotOne,
    code: "unsupported_architecture",
    reason: "partial rotary embeddings are not supported",
  },
  {
    keys: ["logits_scaling", "logit_scale", "residual_multiplier", "embedding_multiplier", "attention_multiplier"],
    refuses: isNotOne,
    code: "unsupported_architecture",
    reason: "scaled logits, residuals, embeddings or attention are not supported",
  },
  {
    keys: [
      "use_bidirectional_attention",
      "add_cross_attention",
      "is_encoder_decoder",
      "use_qk_norm",
      "clip_qkv",
      "no_rope_layers",
      "no_rope_layer_interval",
      "alibi",
    ],
    refuses: isSet,
    code: "unsupported_architecture",
    reason: "this variation of attention is not supported",
  },
  {
    keys: ["is_causal"],
    refuses: (value) => value === false,
    code: "unsupported_architecture",
    reason: "the model is an encoder; only causal language models are supported",
  },
  {
    keys: ["attention_bias"],
    // Transformers ignores the key for qwen2 (always biased there); for mistral a bias would be lost.
    refuses: (value, spec) => spec.qkvBias === "never" && isSet(value),
    code: "unsupported_architecture",
    reason: "this family has no attention biases",
  },
  {
    keys: ["mlp_bias"],
    refuses: (value, spec) => spec.mlpBias === "never" && isSet(value),
    code: "unsupported_architecture",
    reason: "this family has no MLP biases",
  },
  {
    keys: ["sliding_window"],
    refuses: (_value, spec) => spec.windows === "none",
    code: "unsupported_architecture",
    reason: "this family has no sliding window, and ignoring it would change the numbers",
  },
  {
    keys: ["auto_map"],
    refuses: (value) => isObject(value) && Object.keys(value).some((key) => key.startsWith("AutoModel")),
    code: "unsupported_architecture",
    reason: "the model brings its own Python code, which may compute something else",
  },
];

/** Heads other than a language model's give other outputs from the same tensors. */
const CAUSAL_CLASS = /(ForCausalLM|ForConditionalGeneration|LMHeadModel|Model)$/;

/** Errors: `unsupported_architecture`, `unsupported_checkpoint`, naming key and reason. */
export function refuseUnsupported(config: JsonObject, spec: FamilySpec): void {
  for (const { keys, refuses, code, reason } of REFUSALS) {
    for (const key of keys) {
      const value = Object.hasOwn(config, key) ? config[key] : undefined;
      if (value !== undefined && value !== null && refuses(value, spec)) {
        throw fail(code, `config.json sets ${key} (${show(value)}): ${reason}`);
      }
    }
  }
  const classes: unknown = config.architectures;
  if (Array.isArray(classes) && classes.length > 0 && !classes.some((name) => CAUSAL_CLASS.test(String(name)))) {
    throw fail(
      "unsupported_architecture",
      `architectures is ${show(classes)}; only causal language models are supported`,
    );
  }
}
