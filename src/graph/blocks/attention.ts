import type { Value } from "../ir.ts";
import { add, batchedMatmul, matmul, mul, mulRow, repeatRow, rmsNorm, rotary, softmax } from "../ops/math.ts";
import { concat, dropEnd, padEnd, reshape, split, splitBy, transpose } from "../ops/shape.ts";
import { type BlockContext, normWeight, project } from "./context.ts";

/**
 * Grouped-query attention (arXiv 2305.13245) in the two forms that serving needs. Keys and values of earlier positions
 * are read where JavaScript keeps them; only new rows come out. Every sum over positions runs over the same positions in
 * the same order whatever else is computed beside it, so a result is the same to the bit alone and in a batch.
 */

export interface Rotary {
  /** int64 (B, S): positions, rows of the tables. */
  positions: Value;
  /** (positions, D/2) */
  cos: Value;
  sin: Value;
}

/**
 * Queries, keys and values of the new tokens, rotated: (B, S, heads·D), (B, S, kvHeads·D), (B·S, kvHeads·D).
 * `lead` is the shape (B, S, rest); `real` leaves out rows that only make a product's number of rows even.
 */
export function projected(
  c: BlockContext,
  x: Value,
  layer: number,
  io: Rotary,
  lead: Value,
  real: (rows: Value) => Value = (rows) => rows,
): { query: Value; key: Value; value: Value } {
  const { g, config } = c;
  const { heads, kvHeads, headDim } = config;
  const rotated = heads + kvHeads;
  const sizes = [rotated * headDim, kvHeads * headDim];
  const [qk, value] = split(g, real(project(c, x, layer, "qkv")), 1, sizes) as [Value, Value];
  const y = reshape(g, config.qkNorm ? normHeads(c, qk, layer) : qk, lead);
  const turned = rotary(g, y, io.positions, io.cos, io.sin, rotated);
  const [query, key] = split(g, turned, 2, [heads * headDim, kvHeads * headDim]) as [Value, Value];
  return { query, key, value };
}

/** RMSNorm of every head, queries and keys in one pass: normed without a weight, then by each head's own. */
function normHeads(c: BlockContext, qk: Value, layer: number): Value {
  const { g, config } = c;
  const { heads, kvHeads, headDim } = config;
  const weight = (module: string, count: number): Value =>
    repeatRow(g, normWeight(c, `model.layers.${layer}.self_attn.${module}`), count);
  const ones = g.constant("float", [headDim], new Uint8Array(new Float32Array(headDim).fill(1).buffer));
  const normed = rmsNorm(g, reshape(g, qk, [-1, heads + kvHeads, headDim]), ones, config.rmsNormEps);
  return mulRow(g, normed, concat(g, [weight("q_norm", heads), weight("k_norm", kvHeads)], 0));
}

/** What prefill attention reads: B sequences of S new tokens after the same P cached ones. */
export interface PrefillInputs extends Rotary {
  /** (1, 1, S·G, P + S), 0 or a large negative number. */
  mask: Value;
  /** (P, 1, kvHeads, D) */
  pastKey: Value;
  pastValue: Value;
  shapes: PrefillShapes;
}

/** Shape vectors that all layers share. */
export interface PrefillShapes {
  /** (B, S, −1) */
  lead: Value;
  /** (1, B, 1, 1) */
  perSequence: Value;
}

export interface NewRows {
  /** (B·S, hidden) */
  hidden: Value;
  /** (B, S, kvHeads, D) */
  key: Value;
  value: Value;
}

/**
 * Old and new keys become one matrix, positions outermost, so a sum over positions is cut at the same places however the
 * text was cut into chunks. Positions outermost also makes appending one copy.
 */
export function prefillAttention(c: BlockContext, x: Value, layer: number, io: PrefillInputs): NewRows {
  const { g, config } = c;
  const { heads, kvHeads, headDim } = config;
  const group = heads / kvHeads;
  const { query, key: k, value: v } = projected(c, x, layer, io, io.shapes.lead);
  const key = reshape(g, k, [0, 0, kvHeads, headDim], `new_k.${layer}`);
  const value = reshape(g, reshape(g, v, io.shapes.lead), [0, 0, kvHeads, headDim], `new_v.${layer}`);
  const all = (past: Value, fresh: Value): Value => {
    const repeated = g.node("Expand", [past, io.shapes.perSequence]);
    return concat(g, [repeated, transpose(g, fresh, [1, 0, 2, 3])], 0); // (P + S, B, kvHeads, D)
  };
  const byHead = transpose(g, reshape(g, query, [0, 0, kvHeads, group, headDim]), [0, 2, 1, 3, 4]);
  const queries = reshape(g, byHead, [0, 0, -1, headDim]); // (B, kvHeads, S·G, D)
  const scores = batchedMatmul(g, queries, all(io.pastKey, key), {
    alpha: config.attentionScale,
    transposed: true,
    batchInside: true,
  });
  const weights = softmax(g, add(g, scores, io.mask)); // (B, kvHeads, S·G, P + S)
  const mixed = batchedMatmul(g, weights, all(io.pastValue, value), { batchInside: true }); // (B, kvHeads, S·G, D)
  const bySequence = transpose(g, reshape(g, mixed, [0, 0, -1, group, headDim]), [0, 2, 1, 3, 4]);
  return { hidden: project(c, reshape(g, bySequence, [-1, heads * headDim]), layer, "o"), key, value };
}

/** What one decode step reads: B sequences, one new token each, P positions of the prompt and C decoded ones. */
export interface DecodeInputs extends Rotary {
  /** (B, 1, 1, P + C + 1), 0 or a large negative number. */
  mask: Value;
  /** Each sequence's own prompt (B, kvHeads, P, D), or the one that all share (P, kvHeads, D). */
  promptKey: Value;
  promptValue: Value;
  /** (B, kvHeads, C, D) */
  pastKey: Value;
  pastValue: Value;
  shapes: DecodeShapes;
  /** Where products get an even number of rows: these take the padding off and put it on again, (N, width) each. */
  rows: { real(padded: Value): Value; padded(real: Value): Value };
}

export interface DecodeShapes {
  /** (P, C, 1) */
  parts: Value;
  /** Where the prompt is shared: (kvHeads, −1, G, P) and (kvHeads, −1, P). */
  apart: Value | null;
  together: Value | null;
}

/**
 * Prompt, decoded positions and the new token are multiplied apart and meet in one softmax: nothing is copied. A shared
 * prompt is read once for all sequences, whose queries become rows of one product: the same numbers to the bit as each
 * by itself, and several times faster.
 */
export function decodeAttention(c: BlockContext, x: Value, layer: number, io: DecodeInputs): NewRows {
  const { g, config } = c;
  const { heads, kvHeads, headDim } = config;
  const group = heads / kvHeads;
  // A batched product of one row is summed in another order than one of two (engine.md 2.7): never a single row.
  const padding = group === 1 ? 1 : 0;
  const rows = group + padding;
  const lead = g.int64s([-1, 1, (heads + kvHeads) * headDim]);
  const { query, key: k, value: v } = projected(c, x, layer, io, lead, io.rows.real);
  const key = reshape(g, k, [-1, kvHeads, 1, headDim], `new_k.${layer}`);
  const value = reshape(g, v, [-1, kvHeads, 1, headDim], `new_v.${layer}`);
  const grouped = reshape(g, query, [-1, kvHeads, group, headDim]);
  const queries = padding > 0 ? padEnd(g, grouped, 4, 2, padding) : grouped; // (B, kvHeads, rows, D)

  const how = { alpha: config.attentionScale, transposed: true };
  const scores = [
    overPrompt(c, io, queries),
    batchedMatmul(g, queries, io.pastKey, how),
    batchedMatmul(g, queries, key, how),
  ];
  const weights = softmax(g, add(g, concat(g, scores, 3), io.mask)); // (B, kvHeads, rows, P + C + 1)
  const [onPrompt, onPast, onNew] = splitBy(g, weights, 3, io.shapes.parts, 3) as [Value, Value, Value];
  // The new position is one: its product is a multiplication.
  const decoded = add(g, matmul(g, onPast, io.pastValue), mul(g, onNew, value));
  const mixed = add(g, fromPrompt(c, io, onPrompt, rows), decoded); // (B, kvHeads, rows, D)
  const kept = padding > 0 ? dropEnd(g, mixed, 2, padding) : mixed;
  const hidden = project(c, io.rows.padded(reshape(g, kept, [-1, heads * headDim])), layer, "o");
  return { hidden, key, value };
}

/** (B, kvHeads, rows, D) → (B, kvHeads, rows, P) */
function overPrompt({ g, config }: BlockContext, io: DecodeInputs, queries: Value): Value {
  const { kvHeads, headDim, attentionScale } = config;
  const how = { alpha: attentionScale, transposed: true };
  if (!io.shapes.apart) return batchedMatmul(g, queries, io.promptKey, how);
  const together = reshape(g, transpose(g, queries, [1, 0, 2, 3]), [kvHeads, -1, headDim]); // (kvHeads, B·rows, D)
  const scores = batchedMatmul(g, together, io.promptKey, { ...how, batchInside: true });
  return transpose(g, reshape(g, scores, io.shapes.apart), [1, 0, 2, 3]);
}

/** (B, kvHeads, rows, P) → (B, kvHeads, rows, D) */
function fromPrompt({ g, config }: BlockContext, io: DecodeInputs, weights: Value, rows: number): Value {
  const { kvHeads, headDim } = config;
  if (!io.shapes.together) return matmul(g, weights, io.promptValue);
  const together = reshape(g, transpose(g, weights, [1, 0, 2, 3]), io.shapes.together); // (kvHeads, B·rows, P)
  const mixed = batchedMatmul(g, together, io.promptValue, { batchInside: true });
  return transpose(g, reshape(g, mixed, [kvHeads, -1, rows, headDim]), [1, 0, 2, 3]);
}
