import type { Value } from "../ir.ts";
import { geluTanh, mul, silu } from "../ops/math.ts";
import { type BlockContext, project } from "./context.ts";

/** Gated MLP (arXiv 2002.05202): down(act(gate(x)) · up(x)), (N, hidden) → (N, hidden). */
export function mlp(c: BlockContext, x: Value, layer: number): Value {
  const { g, config } = c;
  const gate = project(c, x, layer, "gate");
  const up = project(c, x, layer, "up");
  const activated = config.activation === "silu" ? silu(g, gate) : geluTanh(g, gate);
  return project(c, mul(g, activated, up), layer, "down");
}
