import { fail } from "../../errors.ts";
import type { Architecture } from "./architecture.ts";
import { quote } from "./metadata.ts";
import type { GgufFile, GgufTensor } from "./reader.ts";

export interface PlannedTensor {
  /** Hugging Face name. */
  name: string;
  shape: readonly number[];
  /** Half-precision tensors keep their type; everything else becomes F32. */
  dtype: "F32" | "F16" | "BF16";
  /** null: zeros (a bias that the family has and the file leaves out). */
  source: GgufTensor | null;
  /** Undo the permutation of q and k: number of heads the rows belong to. */
  unpermuteHeads?: number;
  /** Subtract 1 (gemma's norms). */
  minusOne?: boolean;
}

interface Expected {
  gguf: string;
  name: string;
  shape: readonly number[];
  /** "skip": left out of the checkpoint when the file lacks it; "zeros": zeros then; absent: the file must have it. */
  missing?: "skip" | "zeros";
  unpermuteHeads?: number;
  norm?: boolean;
}

/**
 * Which tensor of the file becomes which of the checkpoint. Every tensor the architecture needs is checked for its shape,
 * and one that is in the file but not understood refuses the file: ignoring a bias or an adapter changes every number.
 */
export function planTensors(file: GgufFile, architecture: Architecture): PlannedTensor[] {
  const expected = expectedTensors(architecture);
  const known = new Set([...expected.map((each) => each.gguf), "rope_freqs.weight"]);
  for (const name of file.tensors.keys()) {
    if (!known.has(name)) {
      throw fail(
        "unsupported_checkpoint",
        `${file.label}: tensor ${quote(name)} is not part of architecture ${architecture.name} as it is built here`,
      );
    }
  }
  const planned: PlannedTensor[] = [];
  for (const each of expected) {
    const source = file.tensors.get(each.gguf) ?? null;
    if (source === null && !each.missing) {
      throw fail("invalid_checkpoint", `${file.label}: tensor ${each.gguf} is missing`);
    }
    if (source === null && each.missing === "skip") continue;
    if (source) checkShape(file.label, source, each.shape);
    planned.push(plan(each, source, architecture));
  }
  // Wider types first: then every tensor begins at a multiple of its own width.
  return planned.sort((a, b) => Number(a.dtype !== "F32") - Number(b.dtype !== "F32"));
}

function plan(each: Expected, source: GgufTensor | null, architecture: Architecture): PlannedTensor {
  const minusOne = each.norm === true && architecture.gemmaNorms;
  const keeps = source !== null && !minusOne && (source.type === "F16" || source.type === "BF16");
  return {
    name: each.name,
    shape: each.shape,
    dtype: keeps ? (source.type as "F16" | "BF16") : "F32",
    source,
    ...(each.unpermuteHeads && architecture.permuted ? { unpermuteHeads: each.unpermuteHeads } : {}),
    ...(minusOne ? { minusOne } : {}),
  };
}

function checkShape(label: string, source: GgufTensor, shape: readonly number[]): void {
  if (source.shape.join() === shape.join()) return;
  throw fail(
    "invalid_checkpoint",
    `${label}: tensor ${source.name} has shape [${source.shape.join(", ")}]; the metadata asks for [${shape.join(", ")}]`,
  );
}

function expectedTensors(a: Architecture): Expected[] {
  const list: Expected[] = [
    { gguf: "token_embd.weight", name: "model.embed_tokens.weight", shape: [a.vocab, a.hidden] },
    { gguf: "output_norm.weight", name: "model.norm.weight", shape: [a.hidden], norm: true },
    { gguf: "output.weight", name: "lm_head.weight", shape: [a.vocab, a.hidden], missing: "skip" },
  ];
  for (let i = 0; i < a.layers; i++) list.push(...layerTensors(a, `blk.${i}.`, `model.layers.${i}.`));
  return list;
}

function layerTensors(a: Architecture, from: string, to: string): Expected[] {
  const q = a.heads * a.headDim;
  const kv = a.kvHeads * a.headDim;
  const norm = (gguf: string, name: string, width: number): Expected => ({
    gguf: `${from}${gguf}.weight`,
    name: `${to}${name}.weight`,
    shape: [width],
    norm: true,
  });
  /** A projection (out, in) and its bias (out): needed, filled with zeros, or not part of the family at all. */
  const linear = (
    gguf: string,
    name: string,
    out: number,
    into: number,
    bias: "needed" | "zeros" | "none",
    unpermuteHeads?: number,
  ): Expected[] => {
    const shared = unpermuteHeads ? { unpermuteHeads } : {};
    const weight = { gguf: `${from}${gguf}.weight`, name: `${to}${name}.weight`, shape: [out, into], ...shared };
    if (bias === "none") return [weight];
    const missing = bias === "zeros" ? { missing: "zeros" as const } : {};
    return [weight, { gguf: `${from}${gguf}.bias`, name: `${to}${name}.bias`, shape: [out], ...missing, ...shared }];
  };
  // A file may have biases on some projections only; the config knows all or none.
  const flag = (on: boolean) => (a.biases === "flags" && on ? "zeros" : "none");
  const qkv = a.biases === "qkv" ? "needed" : flag(a.attentionBias);
  const mlp = flag(a.mlpBias && a.name === "llama");
  return [
    norm("attn_norm", "input_layernorm", a.hidden),
    ...linear("attn_q", "self_attn.q_proj", q, a.hidden, qkv, a.heads),
    ...linear("attn_k", "self_attn.k_proj", kv, a.hidden, qkv, a.kvHeads),
    ...linear("attn_v", "self_attn.v_proj", kv, a.hidden, qkv),
    ...linear("attn_output", "self_attn.o_proj", a.hidden, q, flag(a.attentionBias)),
    ...(a.qkNorm
      ? [norm("attn_q_norm", "self_attn.q_norm", a.headDim), norm("attn_k_norm", "self_attn.k_norm", a.headDim)]
      : []),
    ...(a.gemmaNorms
      ? [
          norm("post_attention_norm", "post_attention_layernorm", a.hidden),
          norm("ffn_norm", "pre_feedforward_layernorm", a.hidden),
          norm("post_ffw_norm", "post_feedforward_layernorm", a.hidden),
        ]
      : [norm("ffn_norm", "post_attention_layernorm", a.hidden)]),
    ...linear("ffn_gate", "mlp.gate_proj", a.intermediate, a.hidden, mlp),
    ...linear("ffn_up", "mlp.up_proj", a.intermediate, a.hidden, mlp),
    ...linear("ffn_down", "mlp.down_proj", a.hidden, a.intermediate, mlp),
  ];
}
