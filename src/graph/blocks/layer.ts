import type { Value } from "../ir.ts";
import { add } from "../ops/math.ts";
import { type AttentionInputs, type AttentionOutputs, attention } from "./attention.ts";
import { type BlockContext, norm } from "./context.ts";
import { mlp } from "./mlp.ts";

/**
 * One transformer layer, (N, hidden) → (N, hidden). Gemma norms the results of attention and MLP too, under names that
 * elsewhere belong to the norm before the MLP.
 */
export function layer(c: BlockContext, x: Value, index: number, io: AttentionInputs): AttentionOutputs {
  const { g, config } = c;
  const name = (part: string): string => `model.layers.${index}.${part}`;
  const attended = attention(c, norm(c, x, name("input_layernorm")), index, io);
  if (!config.gemmaNorms) {
    const middle = add(g, x, attended.hidden);
    const hidden = add(g, middle, mlp(c, norm(c, middle, name("post_attention_layernorm")), index));
    return { ...attended, hidden };
  }
  const middle = add(g, x, norm(c, attended.hidden, name("post_attention_layernorm")));
  const fed = mlp(c, norm(c, middle, name("pre_feedforward_layernorm")), index);
  return { ...attended, hidden: add(g, middle, norm(c, fed, name("post_feedforward_layernorm"))) };
}
