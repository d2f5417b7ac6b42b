import { fail } from "../../errors.ts";
import { type MetadataFields, metadataFields } from "./fields.ts";
import { quote } from "./metadata.ts";
import type { GgufFile } from "./reader.ts";

/** What the architectures we read have in common with llama, and where they differ: data, not code. */
interface Family {
  modelType: string;
  className: string;
  /** llama.cpp rotates neighbouring pairs in this family, so its converter permuted the rows of q and k. */
  permuted: boolean;
  qkNorm: boolean;
  /** "flags": all or none of q, k, v, o and all or none of the MLP, as config.json says; "qkv": always these three. */
  biases: "flags" | "qkv" | "none";
  /** Norms before and after each block, stored as 1 + w. */
  gemmaNorms: boolean;
}

const FAMILIES: Readonly<Record<string, Family>> = {
  llama: {
    modelType: "llama",
    className: "LlamaForCausalLM",
    permuted: true,
    qkNorm: false,
    biases: "flags",
    gemmaNorms: false,
  },
  qwen2: {
    modelType: "qwen2",
    className: "Qwen2ForCausalLM",
    permuted: false,
    qkNorm: false,
    biases: "qkv",
    gemmaNorms: false,
  },
  qwen3: {
    modelType: "qwen3",
    className: "Qwen3ForCausalLM",
    permuted: false,
    qkNorm: true,
    biases: "flags",
    gemmaNorms: false,
  },
  gemma3: {
    modelType: "gemma3_text",
    className: "Gemma3ForCausalLM",
    permuted: false,
    qkNorm: true,
    biases: "none",
    gemmaNorms: true,
  },
};

/** The numbers of the model, checked against each other. Sizes are counts. */
export interface Architecture extends Family {
  /** `general.architecture`, the prefix of its metadata keys. */
  name: string;
  layers: number;
  hidden: number;
  intermediate: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  /** Rows of the embedding; the tokenizer may know fewer. */
  vocab: number;
  contextLength: number;
  /** Biases, as found among the tensors of the first layer. */
  attentionBias: boolean;
  mlpBias: boolean;
  tiedHead: boolean;
}

/** More layers than any model has; a bound on the work a lying file can cause. */
const MAX_LAYERS = 1024;

/** Errors: `unsupported_architecture` by name, `unsupported_checkpoint`, `invalid_checkpoint`. */
export function readArchitecture(file: GgufFile): Architecture {
  const fields = metadataFields(file);
  const name = fields.string("general.architecture");
  if (name === undefined) throw fail("invalid_checkpoint", `${file.label}: general.architecture is missing`);
  const family = Object.hasOwn(FAMILIES, name) ? FAMILIES[name] : undefined;
  if (!family) {
    throw fail(
      "unsupported_architecture",
      `${file.label}: architecture ${quote(name)} is not supported in GGUF files; these are: ${Object.keys(FAMILIES).join(", ")}`,
    );
  }
  const size = (key: string): number => fields.requiredSize(`${name}.${key}`);
  const hidden = size("embedding_length");
  const heads = size("attention.head_count");
  const kvHeads = fields.size(`${name}.attention.head_count_kv`) ?? heads;
  const headDim = fields.size(`${name}.attention.key_length`) ?? hidden / heads;
  const embedding = file.tensors.get("token_embd.weight");
  if (!embedding) throw fail("invalid_checkpoint", `${file.label}: tensor token_embd.weight is missing`);
  const layers = size("block_count");
  if (layers > MAX_LAYERS) throw fail("invalid_checkpoint", `${file.label}: claims ${layers} layers`);
  if (heads % kvHeads !== 0 || headDim % 2 !== 0) {
    throw fail(
      "invalid_checkpoint",
      `${file.label}: ${heads} heads of ${headDim} with ${kvHeads} key-value heads and ${hidden} hidden values contradict each other`,
    );
  }
  refuseVariants(file, fields, name, headDim);
  return {
    ...family,
    name,
    layers,
    hidden,
    intermediate: size("feed_forward_length"),
    heads,
    kvHeads,
    headDim,
    vocab: embedding.shape[0] ?? 0,
    contextLength: size("context_length"),
    attentionBias: family.biases === "qkv" || hasAny(file, "attn_q", "attn_k", "attn_v", "attn_output"),
    mlpBias: hasAny(file, "ffn_gate", "ffn_up", "ffn_down"),
    tiedHead: !file.tensors.has("output.weight"),
  };
}

function hasAny(file: GgufFile, ...modules: readonly string[]): boolean {
  return modules.some((module) => file.tensors.has(`blk.0.${module}.bias`));
}

/** Variants of a known architecture whose numbers we would get wrong. */
function refuseVariants(file: GgufFile, fields: MetadataFields, name: string, headDim: number): void {
  const refuse = (reason: string): never => {
    throw fail("unsupported_checkpoint", `${file.label}: ${reason}`);
  };
  const experts = fields.number(`${name}.expert_count`) ?? 0;
  if (experts > 0) refuse(`is a mixture of ${experts} experts, which is not supported`);
  const valueDim = fields.size(`${name}.attention.value_length`) ?? headDim;
  if (valueDim !== headDim) refuse(`values of ${valueDim} beside keys of ${headDim} are not supported`);
  const rotary = fields.size(`${name}.rope.dimension_count`) ?? headDim;
  if (rotary !== headDim) refuse(`rotates only ${rotary} of ${headDim} dimensions, which is not supported`);
  for (const key of ["attn_logit_softcapping", "final_logit_softcapping", "logit_scale", "attention.scale"]) {
    if ((fields.number(`${name}.${key}`) ?? 0) !== 0) refuse(`${name}.${key} is not supported`);
  }
  if (name !== "gemma3" && (fields.number(`${name}.attention.sliding_window`) ?? 0) !== 0) {
    refuse(`${name}.attention.sliding_window is not supported in this architecture`);
  }
}
