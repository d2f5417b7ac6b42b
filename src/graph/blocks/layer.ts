import type { Value } from "../ir.ts";
import { type BlockContext, norm, normStream, type Stream } from "./context.ts";
import { mlp } from "./mlp.ts";

/** Normed input (N, hidden) → what attention adds to the stream (N, hidden). */
export type Attend = (c: BlockContext, x: Value, layer: number) => Value;

/**
 * One transformer layer over the residual stream. Gemma norms the results of attention and MLP too, under names that
 * elsewhere belong to the norm before the MLP.
 */
export function layer(c: BlockContext, stream: Stream, index: number, attend: Attend): Stream {
  const { gemmaNorms } = c.config;
  const name = (part: string): string => `model.layers.${index}.${part}`;
  const before = normStream(c, stream, name("input_layernorm"));
  const attended = attend(c, before.normed, index);
  const pending = gemmaNorms ? norm(c, attended, name("post_attention_layernorm")) : attended;
  const middle = normStream(
    c,
    { residual: before.residual, pending },
    name(gemmaNorms ? "pre_feedforward_layernorm" : "post_attention_layernorm"),
  );
  const fed = mlp(c, middle.normed, index);
  return {
    residual: middle.residual,
    pending: gemmaNorms ? norm(c, fed, name("post_feedforward_layernorm")) : fed,
  };
}
