import type { GraphBuilder } from "../builder.ts";
import { type Attribute, type ElementType, float, int, type Value } from "../ir.ts";

/** Element-wise ops, products and reductions. */

const MICROSOFT = "com.microsoft";

export const add = (g: GraphBuilder, a: Value, b: Value): Value => g.node("Add", [a, b]);
export const sub = (g: GraphBuilder, a: Value, b: Value): Value => g.node("Sub", [a, b]);
export const mul = (g: GraphBuilder, a: Value, b: Value): Value => g.node("Mul", [a, b]);
export const exp = (g: GraphBuilder, x: Value): Value => g.node("Exp", [x]);
export const maximum = (g: GraphBuilder, a: Value, b: Value): Value => g.node("Max", [a, b]);
export const minimum = (g: GraphBuilder, a: Value, b: Value): Value => g.node("Min", [a, b]);

export function cast(g: GraphBuilder, x: Value, type: ElementType): Value {
  const code = { float: 1, uint8: 2, int32: 6, int64: 7, bool: 9, float16: 10, bfloat16: 16 }[type];
  return x.type === type ? x : g.node("Cast", [x], { type, attributes: { to: int(code) } });
}

/** (…, m, k) × (…, k, n) → (…, m, n) */
export const matmul = (g: GraphBuilder, a: Value, b: Value): Value => g.node("MatMul", [a, b]);

/** alpha · a · bᵀ: (…, m, k) × (…, n, k) → (…, m, n). The layout of every Hugging Face weight. */
export function matmulTransposed(g: GraphBuilder, a: Value, b: Value, alpha = 1, name?: string): Value {
  const attributes: Record<string, Attribute> = { transB: int(1) };
  if (alpha !== 1) attributes.alpha = float(alpha);
  return g.node("FusedMatMul", [a, b], { domain: MICROSOFT, attributes, ...(name ? { names: [name] } : {}) });
}

export interface BatchedOptions {
  alpha?: number;
  /** The second factor is (…, n, k). */
  transposed?: boolean;
  /** The second factor has its rows outermost, (rows, batch…, columns), and is read so without a copy. */
  batchInside?: boolean;
}

/** A product per batch entry: (batch…, m, k) × (batch…, k, n) → (batch…, m, n). */
export function batchedMatmul(g: GraphBuilder, a: Value, b: Value, options: BatchedOptions = {}): Value {
  const { alpha = 1, transposed = false, batchInside = false } = options;
  const attributes: Record<string, Attribute> = {};
  if (transposed) attributes.transB = int(1);
  if (batchInside) attributes.transBatchB = int(1);
  if (alpha !== 1) attributes.alpha = float(alpha);
  return g.node("FusedMatMul", [a, b], { domain: MICROSOFT, attributes });
}

/** Rows of `table` by index, or slices along another axis. */
export const gather = (g: GraphBuilder, table: Value, indices: Value, axis = 0): Value =>
  g.node("Gather", [table, indices], { attributes: { axis: int(axis) } });

/** (N, V) at (N, K) ids → (N, K) */
export function gatherColumns(g: GraphBuilder, x: Value, ids: Value): Value {
  return g.node("GatherElements", [x, ids], { attributes: { axis: int(1) } });
}

/** Sum over the last axis, kept with size 1. */
export function sumLast(g: GraphBuilder, x: Value): Value {
  return g.node("ReduceSum", [x, g.int64s([-1])], { attributes: { keepdims: int(1) } });
}

export const softmax = (g: GraphBuilder, x: Value): Value => g.node("Softmax", [x], { attributes: { axis: int(-1) } });
export const logSoftmax = (g: GraphBuilder, x: Value): Value =>
  g.node("LogSoftmax", [x], { attributes: { axis: int(-1) } });

/** x · sigmoid(x) */
export function silu(g: GraphBuilder, x: Value): Value {
  return g.node("QuickGelu", [x], { domain: MICROSOFT, attributes: { alpha: float(1) } });
}

/** 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))) */
export function geluTanh(g: GraphBuilder, x: Value): Value {
  return g.node("Gelu", [x], { attributes: { approximate: { string: "tanh" } } });
}

/** x / sqrt(mean(x²) + eps) · weight over the last axis (RMSNorm, arXiv 1910.07467). */
export function rmsNorm(g: GraphBuilder, x: Value, weight: Value, epsilon: number, name?: string): Value {
  const attributes = { axis: int(-1), epsilon: float(epsilon), stash_type: int(1) };
  return g.node("SimplifiedLayerNormalization", [x, weight], { attributes, ...(name ? { names: [name] } : {}) });
}

/** RMSNorm of x + skip, and the sum itself. */
export function skipRmsNorm(
  g: GraphBuilder,
  x: Value,
  skip: Value,
  weight: Value,
  epsilon: number,
  name?: string,
): [normed: Value, sum: Value] {
  const types = ["float", "float", "float", "float"] as const;
  const values = g.nodes("SkipSimplifiedLayerNormalization", [x, skip, weight], types, {
    domain: MICROSOFT,
    attributes: { epsilon: float(epsilon) },
    // Mean and inverse deviation are left out.
    names: [name, "", "", undefined],
  });
  return [values[0] as Value, values[3] as Value];
}

/**
 * Rotary embedding in Hugging Face's half-split layout: (x₁, x₂) → (x₁ cos − x₂ sin, x₂ cos + x₁ sin).
 * `x` (B, S, heads·D), `positions` int64 (B, S) rows of `cos` and `sin` (rows, D/2). Its backward is the same op with −sin.
 */
export function rotary(g: GraphBuilder, x: Value, positions: Value, cos: Value, sin: Value, heads: number): Value {
  return g.node("RotaryEmbedding", [x, positions, cos, sin], {
    domain: MICROSOFT,
    attributes: { num_heads: int(heads), interleaved: int(0) },
  });
}

/** One of two branches, decided at run time; only the chosen one computes. Both yield values of these types. */
export function when(
  g: GraphBuilder,
  condition: Value,
  outputs: Readonly<Record<string, ElementType>>,
  yes: (g: GraphBuilder) => readonly Value[],
  no: (g: GraphBuilder) => readonly Value[],
): Value[] {
  return g.nodes("If", [condition], Object.values(outputs), {
    names: Object.keys(outputs),
    attributes: { then_branch: { graph: g.branch(yes) }, else_branch: { graph: g.branch(no) } },
  });
}
