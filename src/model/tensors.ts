/** The tensors an architecture needs, by their Hugging Face names and shapes. */
import type { ModelConfig } from "./checkpoint.ts";

/** Linear maps of a layer: module → [path below the layer, out, in]. Adapters may be put on each of them. */
export function linearShapes(config: ModelConfig): Record<string, { path: string; out: number; in: number }> {
  const { hiddenSize: d, intermediateSize: f } = config;
  const q = config.heads * config.headDim;
  const kv = config.kvHeads * config.headDim;
  return {
    q_proj: { path: "self_attn.q_proj", out: q, in: d },
    k_proj: { path: "self_attn.k_proj", out: kv, in: d },
    v_proj: { path: "self_attn.v_proj", out: kv, in: d },
    o_proj: { path: "self_attn.o_proj", out: d, in: q },
    gate_proj: { path: "mlp.gate_proj", out: f, in: d },
    up_proj: { path: "mlp.up_proj", out: f, in: d },
    down_proj: { path: "mlp.down_proj", out: d, in: f },
  };
}

function hasBias(config: ModelConfig, module: string): boolean {
  if (module === "o_proj") return config.oBias;
  return module.endsWith("_proj") && ["q_proj", "k_proj", "v_proj"].includes(module) ? config.qkvBias : config.mlpBias;
}

/** Name → shape of every tensor the model is computed from. Linear weights are (out, in). */
export function expectedTensors(config: ModelConfig): Map<string, readonly number[]> {
  const { hiddenSize: d, vocabSize } = config;
  const norms = config.gemmaNorms
    ? ["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"]
    : ["input_layernorm", "post_attention_layernorm"];
  const linear = Object.entries(linearShapes(config));
  const shapes = new Map<string, readonly number[]>([["model.embed_tokens.weight", [vocabSize, d]]]);
  for (let layer = 0; layer < config.layers; layer++) {
    const prefix = `model.layers.${layer}`;
    for (const norm of norms) shapes.set(`${prefix}.${norm}.weight`, [d]);
    for (const [module, { path, out, in: input }] of linear) {
      shapes.set(`${prefix}.${path}.weight`, [out, input]);
      if (hasBias(config, module)) shapes.set(`${prefix}.${path}.bias`, [out]);
    }
    if (config.qkNorm) {
      shapes.set(`${prefix}.self_attn.q_norm.weight`, [config.headDim]);
      shapes.set(`${prefix}.self_attn.k_norm.weight`, [config.headDim]);
    }
  }
  shapes.set("model.norm.weight", [d]);
  if (!config.tiedHead) shapes.set("lm_head.weight", [vocabSize, d]);
  return shapes;
}
