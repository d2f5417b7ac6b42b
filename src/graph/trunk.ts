import type { Checkpoint, ModelConfig } from "../model/checkpoint.ts";
import { decodeAttention, type NewRows, prefillAttention, type Rotary } from "./blocks/attention.ts";
import { type BlockContext, normStream, type Stream } from "./blocks/context.ts";
import { layer } from "./blocks/layer.ts";
import { createGraph, type GraphBuilder } from "./builder.ts";
import type { GraphData, Value } from "./ir.ts";
import type { PackedMatrix } from "./matrices.ts";
import { cast, gather, mul } from "./ops/math.ts";
import { concat, reshape, shapeOf } from "./ops/shape.ts";
import { createWeights } from "./weights.ts";

export interface TrunkOptions {
  /** Take LoRA tensors as inputs (`lora_a.<layer>.<matrix>`, `lora_b.…`); rank 0 leaves a product alone. */
  lora: boolean;
  /** Matrices to be taken from packed files instead of the checkpoint. */
  packed: ReadonlyMap<string, PackedMatrix> | null;
}

/** The distinct attention windows of a model; a mask input exists for each. */
export function maskWindows(config: ModelConfig): (number | null)[] {
  return [...new Set(config.layerKinds.map((kind) => kind.window))];
}

/**
 * Everything below the head, for prompts and for text to be scored: B sequences of S new tokens after the same P cached ones.
 *
 * Inputs: `ids` int32 (B, S); `positions` int64 (B, S); per RoPE `cos.<r>`, `sin.<r>` (positions, D/2); per window
 * `mask.<w>` (1, 1, S, 1, P + S); per layer `past_k.<l>`, `past_v.<l>` (P, 1, kvHeads, D).
 * Outputs: `hidden` (B·S, hidden) after the final norm; `new_k.<l>`, `new_v.<l>` (B, S, kvHeads, D).
 */
export function prefillGraph(checkpoint: Checkpoint, options: TrunkOptions): GraphData {
  return trunk("prefill", checkpoint, options, (c, io) => {
    const { g, config } = c;
    const batch = shapeOf(g, io.positions, 0, 1);
    const length = shapeOf(g, io.positions, 1, 2);
    // The query heads of a key head are rows of one product, and each needs its row of the mask: repeated once for all layers.
    const group = config.heads / config.kvHeads;
    const masks = io.masks([1, 1, "S", 1, "T"]).map((mask) => {
      const repeated = g.node("Expand", [mask, g.int64s([1, 1, 1, group, 1])]);
      return reshape(g, repeated, concat(g, [g.int64s([1, 1, -1]), shapeOf(g, mask, 4, 5)], 0));
    });
    const shapes = {
      lead: concat(g, [batch, length, g.int64s([-1])], 0),
      perSequence: concat(g, [g.int64s([1]), batch, g.int64s([1, 1])], 0),
    };
    return (x, index, kind) => {
      const past = (name: string): Value =>
        g.input(`${name}.${index}`, "float", ["P", 1, config.kvHeads, config.headDim]);
      const cached = { pastKey: past("past_k"), pastValue: past("past_v") };
      return prefillAttention(c, x, index, { ...io.rotary(kind.rope), ...cached, mask: masks[kind.mask]!, shapes });
    };
  });
}

export interface DecodeOptions extends TrunkOptions {
  /** All sequences continue one prompt, which is fed once. */
  sharedPrompt: boolean;
  /** `ids` may hold one row more than there are sequences, so that products have an even number of them. */
  padRows: boolean;
}

/**
 * The same for one decode step of B sequences.
 *
 * Inputs: `ids` int32 (B, 1), or (B + B mod 2, 1) where `padRows`; `positions` int64 (B, 1); `cos.<r>`, `sin.<r>`; per window `mask.<w>` (B, 1, 1, P + C + 1); per
 * layer `prompt_k.<l>`, `prompt_v.<l>` (B, kvHeads, P, D), or (P, kvHeads, D) where `sharedPrompt`, and `past_k.<l>`,
 * `past_v.<l>` (B, kvHeads, C, D).
 * Outputs: `hidden` (rows of `ids`, hidden); `new_k.<l>`, `new_v.<l>` (B, kvHeads, 1, D).
 */
export function decodeGraph(checkpoint: Checkpoint, options: DecodeOptions): GraphData {
  const { sharedPrompt } = options;
  return trunk(sharedPrompt ? "decode_shared" : "decode", checkpoint, options, (c, io) => {
    const { g, config } = c;
    const { heads, kvHeads, headDim } = config;
    const masks = io.masks(["B", 1, 1, "T"]);
    const promptDims = sharedPrompt ? ["P", kvHeads, headDim] : ["B", kvHeads, "P", headDim];
    const layerInputs = config.layerKinds.map((_, index) => ({
      promptKey: g.input(`prompt_k.${index}`, "float", promptDims),
      promptValue: g.input(`prompt_v.${index}`, "float", promptDims),
      pastKey: g.input(`past_k.${index}`, "float", ["B", kvHeads, "C", headDim]),
      pastValue: g.input(`past_v.${index}`, "float", ["B", kvHeads, "C", headDim]),
    }));
    const { promptKey, pastKey } = layerInputs[0]!;
    const prompt = sharedPrompt ? shapeOf(g, promptKey, 0, 1) : shapeOf(g, promptKey, 2, 3);
    // A single query head per key head is padded to two rows; see decodeAttention.
    const queryRows = Math.max(2, heads / kvHeads);
    const shapes = {
      parts: concat(g, [prompt, shapeOf(g, pastKey, 2, 3), g.int64s([1])], 0),
      apart: sharedPrompt ? concat(g, [g.int64s([kvHeads, -1, queryRows]), prompt], 0) : null,
      together: sharedPrompt ? concat(g, [g.int64s([kvHeads, -1]), prompt], 0) : null,
    };
    const rows = options.padRows ? paddedRows(g, io.ids, shapeOf(g, pastKey, 0, 1)) : asTheyAre;
    return (x, index, kind) => {
      const mask = masks[kind.mask]!;
      return decodeAttention(c, x, index, { ...io.rotary(kind.rope), ...layerInputs[index]!, mask, shapes, rows });
    };
  });
}

const asTheyAre = { real: (rows: Value): Value => rows, padded: (rows: Value): Value => rows };

/** `count` int64 (1): rows that stand for sequences; the others come after them. */
function paddedRows(g: GraphBuilder, ids: Value, count: Value): typeof asTheyAre {
  const missing = g.node("Sub", [shapeOf(g, ids, 0, 1), count]);
  const pads = concat(g, [g.int64s([0, 0]), missing, g.int64s([0])], 0);
  return {
    real: (rows) => g.node("Slice", [rows, g.int64s([0]), count, g.int64s([0])]),
    padded: (rows) => g.node("Pad", [rows, pads]),
  };
}

interface TrunkInputs {
  ids: Value;
  positions: Value;
  rotary(rope: number): Rotary;
  masks(dims: readonly (number | string)[]): Value[];
}

type Attention = (x: Value, layer: number, kind: { rope: number; mask: number }) => NewRows;

function trunk(
  name: string,
  checkpoint: Checkpoint,
  options: TrunkOptions,
  prepare: (c: BlockContext, io: TrunkInputs) => Attention,
): GraphData {
  const { config } = checkpoint;
  const g = createGraph(name);
  const c: BlockContext = { g, config, weights: createWeights(g, checkpoint, options.packed), lora: options.lora };
  const ids = g.input("ids", "int32", ["rows", "S"]);
  const positions = g.input("positions", "int64", ["B", "S"]);
  const half = config.headDim / 2;
  const tables = config.ropes.map((_, r) => ({
    cos: g.input(`cos.${r}`, "float", ["positions", half]),
    sin: g.input(`sin.${r}`, "float", ["positions", half]),
  }));
  const windows = maskWindows(config);
  const attention = prepare(c, {
    ids,
    positions,
    rotary: (rope) => ({ ...tables[rope]!, positions }),
    masks: (dims) => windows.map((_, w) => g.input(`mask.${w}`, "float", dims)),
  });
  let stream: Stream = { residual: embed(c, ids), pending: null };
  for (const [index, { rope, window }] of config.layerKinds.entries()) {
    stream = layer(c, stream, index, (_, x) => {
      const rows = attention(x, index, { rope, mask: windows.indexOf(window) });
      g.output(rows.key);
      g.output(rows.value);
      return rows.hidden;
    });
  }
  g.output(normStream(c, stream, "model.norm", "hidden").normed);
  return g.build();
}

/** (B, S) → (B·S, hidden). Only the rows looked up are widened; the table stays as it lies in the file. */
export function embed(c: BlockContext, ids: Value): Value {
  const { g, config, weights } = c;
  const rows = cast(g, gather(g, weights.stored("model.embed_tokens.weight"), ids), "float");
  const x = reshape(g, rows, [-1, config.hiddenSize]);
  return config.embeddingScale === 1 ? x : mul(g, x, g.float(config.embeddingScale));
}
