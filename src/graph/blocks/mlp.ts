import type { Value } from "../ir.ts";
import { geluTanh, mul, silu } from "../ops/math.ts";
import { recomputed } from "../tape.ts";
import { type BlockContext, project } from "./context.ts";

/**
 * Gated MLP (arXiv 2002.05202): down(act(gate(x)) · up(x)), (N, hidden) → (N, hidden). Where gradients are wanted, only gate
 * and up are kept: what follows from them costs two passes to make again, and is a quarter of what a layer would keep.
 */
export function mlp(c: BlockContext, x: Value, layer: number): Value {
  const { g, config } = c;
  const halves = [project(c, x, layer, "gate"), project(c, x, layer, "up")];
  const [y] = recomputed(g, halves, ([gate, up]) => {
    const activated = config.activation === "silu" ? silu(g, gate!) : geluTanh(g, gate!);
    return [project(c, mul(g, activated, up!), layer, "down")];
  });
  return y!;
}
