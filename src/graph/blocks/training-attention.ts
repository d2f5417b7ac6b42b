import type { Value } from "../ir.ts";
import { attend } from "../ops/attend.ts";
import { concat, reshape, splitBy, transpose } from "../ops/shape.ts";
import { projected, type Rotary } from "./attention.ts";
import { type BlockContext, project } from "./context.ts";

/**
 * Attention where gradients are wanted: N = P + B·S rows, first the P tokens of a prompt that all sequences share (if there
 * is one), then B sequences of S tokens that continue it. The prompt's keys and values are computed once and looked at by
 * all, so their gradients add up over the sequences.
 */
export interface TrainingInputs extends Rotary {
  /** (S·G, P + S), 0 or a large negative number; G: query heads of a key head. */
  mask: Value;
  /** Null where there is no shared prompt. */
  prompt: { mask: Value; count: Value } | null;
  /** int64 (1) each. */
  sequences: Value;
  length: Value;
}

/** (N, hidden) → (N, hidden) */
export function trainingAttention(c: BlockContext, x: Value, layer: number, io: TrainingInputs): Value {
  const { g, config } = c;
  const { heads, kvHeads, headDim, attentionScale } = config;
  const group = heads / kvHeads;
  const { query, key, value } = projected(c, x, layer, io, g.int64s([-1, 1, (heads + kvHeads) * headDim]));
  const one = g.int64s([1]);

  /** (B·S, kvHeads·G·D) → (kvHeads, B, S·G, D) */
  const byHead = (rows: Value, B: Value, S: Value, perHead: number): Value => {
    const shape = concat(g, [B, S, g.int64s([kvHeads, perHead, headDim])], 0);
    const turned = transpose(g, reshape(g, rows, shape), [2, 0, 1, 3, 4]);
    return reshape(g, turned, [0, 0, -1, headDim]);
  };
  /** (kvHeads, B, S·G, D) → (B·S, heads·D) */
  const byRow = (mixed: Value): Value => {
    const turned = transpose(g, reshape(g, mixed, [0, 0, -1, group, headDim]), [1, 2, 0, 3, 4]);
    return reshape(g, turned, [-1, heads * headDim]);
  };
  const { prompt, sequences: B, length: S } = io;
  const attention = ([q, k, v]: readonly Value[], B_: Value, S_: Value) => ({
    q: byHead(q!, B_, S_, group),
    own: { key: byHead(k!, B_, S_, 1), value: byHead(v!, B_, S_, 1), shared: false },
  });
  const width = [heads * headDim, kvHeads * headDim, kvHeads * headDim];
  const rows = [query, key, value].map((y, i) => reshape(g, y, [-1, width[i]!]));
  if (!prompt) {
    const { q, own } = attention(rows, B, S);
    return project(c, byRow(attend(g, q, [own], io.mask, attentionScale)), layer, "o");
  }
  const counts = concat(g, [prompt.count, g.node("Mul", [B, S])], 0);
  const parts = rows.map((y) => splitBy(g, y, 0, counts, 2));
  const first = attention(
    parts.map(([y]) => y!),
    one,
    prompt.count,
  ); // prettier-ignore
  const rest = attention(
    parts.map(([, y]) => y!),
    B,
    S,
  ); // prettier-ignore
  const squeezed = (y: Value): Value => reshape(g, y, [kvHeads, -1, headDim]);
  const shared = { key: squeezed(first.own.key), value: squeezed(first.own.value), shared: true };
  const ofPrompt = attend(g, first.q, [first.own], prompt.mask, attentionScale);
  const ofRest = attend(g, rest.q, [shared, rest.own], io.mask, attentionScale);
  return project(c, concat(g, [byRow(ofPrompt), byRow(ofRest)], 0), layer, "o");
}
