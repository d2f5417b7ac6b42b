import type { GraphBuilder } from "../builder.ts";
import { int, type Value } from "../ir.ts";
import type { Scheme } from "../quantise.ts";

/** A matrix (rows, columns) as `quantise.ts` packs it. */
export interface QuantisedValue {
  scheme: Scheme;
  rows: number;
  columns: number;
  packed: Value;
  scales: Value;
  zeros: Value | null;
}

/** Activations are quantised to 8 bits per block too; any other level is slower than fp32 (engine.md 2.4). */
const INT8_ACTIVATIONS = 4;

/** (N, columns) × (rows, columns)ᵀ → (N, rows). Needs constant weights, which are repacked when the session loads. */
export function matmulQuantised(g: GraphBuilder, x: Value, weight: QuantisedValue, name?: string): Value {
  return g.node("MatMulNBits", [x, weight.packed, weight.scales, weight.zeros], {
    domain: "com.microsoft",
    attributes: {
      K: int(weight.columns),
      N: int(weight.rows),
      bits: int(weight.scheme.bits),
      block_size: int(weight.scheme.block),
      accuracy_level: int(INT8_ACTIVATIONS),
    },
    ...(name ? { names: [name] } : {}),
  });
}
