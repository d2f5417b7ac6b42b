import type { Checkpoint, ModelConfig } from "../model/checkpoint.ts";
import { type BlockContext, norm } from "./blocks/context.ts";
import { layer } from "./blocks/layer.ts";
import { createGraph } from "./builder.ts";
import type { GraphData, Value } from "./ir.ts";
import { cast, gather, mul } from "./ops/math.ts";
import { reshape } from "./ops/shape.ts";
import { createWeights, type QuantisedWeights } from "./weights.ts";

export interface TrunkOptions {
  /** Take LoRA tensors as inputs (`lora_a.<layer>.<module>`, `lora_b.…`); rank 0 leaves a projection alone. */
  lora: boolean;
  /** Matrices to be taken from here instead of the checkpoint; empty for fp32. */
  quantised: QuantisedWeights;
}

/** The distinct attention windows of a model; a mask input exists for each. */
export function maskWindows(config: ModelConfig): (number | null)[] {
  return [...new Set(config.layerKinds.map((kind) => kind.window))];
}

/**
 * Everything below the head, for prefill, scoring and decoding alike: B sequences of S new tokens after P cached ones.
 *
 * Inputs: `ids` int32 (B, S); `positions` int64 (B, S), the numbers 0…B·S−1; per RoPE `cos.<r>`, `sin.<r>` (B·S, D/2);
 * per window `mask.<w>` (B, 1, R, 1, P + S); per layer `past_k.<l>`, `past_v.<l>` (B, kvHeads, P, D).
 * Outputs: `hidden` (B·S, hidden) after the final norm; `new_k.<l>`, `new_v.<l>` (B, kvHeads, S, D).
 */
export function trunkGraph(checkpoint: Checkpoint, options: TrunkOptions): GraphData {
  const { config } = checkpoint;
  const g = createGraph("trunk");
  const c: BlockContext = { g, config, weights: createWeights(g, checkpoint, options.quantised), lora: options.lora };
  const half = config.headDim / 2;

  const ids = g.input("ids", "int32", ["B", "S"]);
  const positions = g.input("positions", "int64", ["B", "S"]);
  const tables = config.ropes.map((_, r) => ({
    cos: g.input(`cos.${r}`, "float", ["N", half]),
    sin: g.input(`sin.${r}`, "float", ["N", half]),
  }));
  const windows = maskWindows(config);
  const masks = windows.map((_, w) => g.input(`mask.${w}`, "float", ["B", 1, "R", 1, "T"]));

  let x = embed(c, ids);
  for (const [index, kind] of config.layerKinds.entries()) {
    const table = tables[kind.rope]!;
    const past = (name: string): Value =>
      g.input(`${name}.${index}`, "float", ["B", config.kvHeads, "P", config.headDim]);
    const io = { ...table, positions, mask: masks[windows.indexOf(kind.window)]! };
    const next = layer(c, x, index, { ...io, pastKey: past("past_k"), pastValue: past("past_v") });
    g.output(next.key);
    g.output(next.value);
    x = next.hidden;
  }
  g.output(norm(c, x, "model.norm", "hidden"));
  return g.build();
}

/** (B, S) → (B·S, hidden). Only the rows looked up are widened; the table stays as it lies in the file. */
function embed(c: BlockContext, ids: Value): Value {
  const { g, config, weights } = c;
  const rows = cast(g, gather(g, weights.stored("model.embed_tokens.weight"), ids), "float");
  const x = reshape(g, rows, [-1, config.hiddenSize]);
  return config.embeddingScale === 1 ? x : mul(g, x, g.float(config.embeddingScale));
}
