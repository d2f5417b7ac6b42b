import type { Value } from "../ir.ts";
import { attend } from "../ops/attend.ts";
import { repeatSecond } from "../ops/math.ts";
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
  const width = [heads * headDim, kvHeads * headDim, kvHeads * headDim];
  const rows = [query, key, value].map((y, i) => reshape(g, y, [-1, width[i]!]));
  const split = ([q, k, v]: readonly Value[], B_: Value, S_: Value) => ({
    q: byHead(q!, B_, S_, group),
    key: byHead(k!, B_, S_, 1),
    value: byHead(v!, B_, S_, 1),
  });
  if (!prompt) {
    const own = split(rows, B, S);
    return project(c, byRow(attend(g, own.q, own.key, own.value, io.mask, attentionScale)), layer, "o");
  }
  const counts = concat(g, [prompt.count, g.node("Mul", [B, S])], 0);
  const parts = rows.map((y) => splitBy(g, y, 0, counts, 2));
  const part = (index: number): Value[] => parts.map((pair) => pair[index]!);
  const first = split(part(0), g.int64s([1]), prompt.count);
  const rest = split(part(1), B, S);
  // A copy for each sequence costs little: scores are many times as large, and those need not be put together.
  const behind = (shared: Value, own: Value): Value => concat(g, [repeatSecond(g, shared, B), own], 2);
  const ofPrompt = attend(g, first.q, first.key, first.value, prompt.mask, attentionScale);
  const [k, v] = [behind(first.key, rest.key), behind(first.value, rest.value)];
  const ofRest = attend(g, rest.q, k, v, io.mask, attentionScale);
  return project(c, concat(g, [byRow(ofPrompt), byRow(ofRest)], 0), layer, "o");
}
