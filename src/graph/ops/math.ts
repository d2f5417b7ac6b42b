import type { GraphBuilder } from "../builder.ts";
import { type Attribute, type ElementType, float, int, type Value } from "../ir.ts";
import { differentiable } from "../tape.ts";
import { concat, reshape, shapeOf, zerosLike } from "./shape.ts";

/**
 * Element-wise ops, products and reductions, each with its backward under its forward (dy: the gradient of its result).
 * Gradients flow to operands of the result's own shape; what is repeated along the first axis has ops of its own.
 */

const MICROSOFT = "com.microsoft";

export function add(g: GraphBuilder, a: Value, b: Value): Value {
  const y = g.node("Add", [a, b]);
  differentiable(g, [y], [a, b], (dy) => [() => dy!, () => dy!]);
  return y;
}

export function sub(g: GraphBuilder, a: Value, b: Value): Value {
  const y = g.node("Sub", [a, b]);
  differentiable(g, [y], [a, b], (dy) => [() => dy!, () => g.node("Neg", [dy!])]);
  return y;
}

export function mul(g: GraphBuilder, a: Value, b: Value): Value {
  const y = g.node("Mul", [a, b]);
  differentiable(g, [y], [a, b], (dy) => [() => mul(g, dy!, b), () => mul(g, dy!, a)]);
  return y;
}

/** x + row, the same row for each entry of the first axis: (N, …) + (…). */
export function addRow(g: GraphBuilder, x: Value, row: Value): Value {
  const y = g.node("Add", [x, row]);
  differentiable(g, [y], [x, row], (dy) => [() => dy!, () => sumFirst(g, dy!)]);
  return y;
}

/** x · row, the same row for each entry of the first axis: (N, …) · (…). */
export function mulRow(g: GraphBuilder, x: Value, row: Value): Value {
  const y = g.node("Mul", [x, row]);
  differentiable(g, [y], [x, row], (dy) => [() => mul(g, dy!, row), () => sumFirst(g, mul(g, dy!, x))]);
  return y;
}

/** (…) → (count, …) */
export function repeatRow(g: GraphBuilder, row: Value, count: number): Value {
  const y = g.node("Expand", [row, concat(g, [g.int64s([count]), g.node("Shape", [row], { type: "int64" })], 0)]);
  differentiable(g, [y], [row], (dy) => [() => sumFirst(g, dy!)]);
  return y;
}

/** (A, 1, …) → (A, count, …): the second axis repeated; `count` is an int64 vector of one number. */
export function repeatSecond(g: GraphBuilder, x: Value, count: Value): Value {
  const rest = g.node("Shape", [x], { type: "int64", attributes: { start: int(2) } });
  const y = g.node("Expand", [x, concat(g, [g.int64s([1]), count, rest], 0)]);
  differentiable(g, [y], [x], (dy) => [
    () => g.node("ReduceSum", [dy!, g.int64s([1])], { attributes: { keepdims: int(1) } }),
  ]);
  return y;
}

/** Sum over the first axis, which goes. */
export function sumFirst(g: GraphBuilder, x: Value): Value {
  return g.node("ReduceSum", [x, g.int64s([0])], { attributes: { keepdims: int(0) } });
}

export function exp(g: GraphBuilder, x: Value): Value {
  const y = g.node("Exp", [x]);
  differentiable(g, [y], [x], (dy) => [() => mul(g, dy!, y)]);
  return y;
}

export const maximum = (g: GraphBuilder, a: Value, b: Value): Value => g.node("Max", [a, b]);
export const minimum = (g: GraphBuilder, a: Value, b: Value): Value => g.node("Min", [a, b]);

export function cast(g: GraphBuilder, x: Value, type: ElementType): Value {
  const code = { float: 1, uint8: 2, int32: 6, int64: 7, bool: 9, float16: 10, bfloat16: 16 }[type];
  return x.type === type ? x : g.node("Cast", [x], { type, attributes: { to: int(code) } });
}

/** (…, m, k) × (…, k, n) → (…, m, n), with equal leading dimensions where gradients are wanted. */
export function matmul(g: GraphBuilder, a: Value, b: Value): Value {
  const y = g.node("MatMul", [a, b]);
  differentiable(g, [y], [a, b], (dy) => [
    () => fusedMatmul(g, dy!, b, { transB: true }),
    () => fusedMatmul(g, a, dy!, { transA: true }),
  ]);
  return y;
}

/** alpha · a · bᵀ: (…, m, k) × (…, n, k) → (…, m, n). The layout of every Hugging Face weight. */
export function matmulTransposed(g: GraphBuilder, a: Value, b: Value, alpha = 1, name?: string): Value {
  const y = fusedMatmul(g, a, b, { transB: true, alpha }, name);
  differentiable(g, [y], [a, b], (dy) => [
    () => fusedMatmul(g, dy!, b, { alpha }),
    () => fusedMatmul(g, dy!, a, { transA: true, alpha }),
  ]);
  return y;
}

interface FusedOptions {
  transA?: boolean;
  transB?: boolean;
  transBatchB?: boolean;
  alpha?: number;
}

/** alpha · a⁽ᵀ⁾ · b⁽ᵀ⁾ over the last two axes. */
export function fusedMatmul(g: GraphBuilder, a: Value, b: Value, options: FusedOptions, name?: string): Value {
  const { transA, transB, transBatchB, alpha = 1 } = options;
  const attributes: Record<string, Attribute> = {};
  if (transA) attributes.transA = int(1);
  if (transB) attributes.transB = int(1);
  if (transBatchB) attributes.transBatchB = int(1);
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

/** A product per batch entry: (batch…, m, k) × (batch…, k, n) → (batch…, m, n). Not differentiated; attention is, as a whole. */
export function batchedMatmul(g: GraphBuilder, a: Value, b: Value, options: BatchedOptions = {}): Value {
  const { alpha = 1, transposed = false, batchInside = false } = options;
  return fusedMatmul(g, a, b, { transB: transposed, transBatchB: batchInside, alpha });
}

/** Rows of `table` by index, or slices along another axis (through which no gradients flow). */
export function gather(g: GraphBuilder, table: Value, indices: Value, axis = 0): Value {
  const y = g.node("Gather", [table, indices], { attributes: { axis: int(axis) } });
  if (axis === 0) differentiable(g, [y], [table], (dy) => [() => scatterRows(g, table, indices, dy!)]);
  return y;
}

/** Zeros in the shape of `table` (R, …), with `rows` added at their indices. */
function scatterRows(g: GraphBuilder, table: Value, indices: Value, rows: Value): Value {
  const at = reshape(g, cast(g, indices, "int64"), [-1, 1]);
  const row = g.node("Shape", [table], { type: "int64", attributes: { start: int(1) } });
  const flat = reshape(g, rows, concat(g, [g.int64s([-1]), row], 0));
  return g.node("ScatterND", [zerosLike(g, table), at, flat], { attributes: { reduction: { string: "add" } } });
}

/** (N, V) at (N, K) ids → (N, K) */
export function gatherColumns(g: GraphBuilder, x: Value, ids: Value): Value {
  return g.node("GatherElements", [x, ids], { attributes: { axis: int(1) } });
}

/** Sum over the last axis, kept with size 1. */
export function sumLast(g: GraphBuilder, x: Value): Value {
  return g.node("ReduceSum", [x, g.int64s([-1])], { attributes: { keepdims: int(1) } });
}

export function softmax(g: GraphBuilder, x: Value): Value {
  const y = g.node("Softmax", [x], { attributes: { axis: int(-1) } });
  // y (dy − Σ dy y)
  differentiable(g, [y], [x], (dy) => [() => mul(g, y, sub(g, dy!, sumLast(g, mul(g, dy!, y))))]);
  return y;
}

export function logSoftmax(g: GraphBuilder, x: Value): Value {
  const y = g.node("LogSoftmax", [x], { attributes: { axis: int(-1) } });
  // dy − exp(y) Σ dy
  differentiable(g, [y], [x], (dy) => [() => sub(g, dy!, mul(g, exp(g, y), sumLast(g, dy!)))]);
  return y;
}

/** x · sigmoid(x) */
export function silu(g: GraphBuilder, x: Value): Value {
  const y = g.node("QuickGelu", [x], { domain: MICROSOFT, attributes: { alpha: float(1) } });
  // σ + x σ (1 − σ) = σ (1 + x − y)
  differentiable(g, [y], [x], (dy) => [
    () => mul(g, dy!, mul(g, g.node("Sigmoid", [x]), add(g, sub(g, x, y), g.float(1)))),
  ]);
  return y;
}

/** 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))) */
export function geluTanh(g: GraphBuilder, x: Value): Value {
  const y = g.node("Gelu", [x], { attributes: { approximate: { string: "tanh" } } });
  differentiable(g, [y], [x], (dy) => [() => mul(g, dy!, geluSlope(g, x))]);
  return y;
}

const GELU_SCALE = Math.sqrt(2 / Math.PI);
const GELU_CUBIC = 0.044715;

/** With u = √(2/π) (x + 0.044715 x³) and t = tanh u: 0.5 (1 + t) + 0.5 x (1 − t²) u′. */
function geluSlope(g: GraphBuilder, x: Value): Value {
  const c = (value: number): Value => g.float(value);
  const square = mul(g, x, x);
  const u = mul(g, x, add(g, mul(g, square, c(GELU_SCALE * GELU_CUBIC)), c(GELU_SCALE)));
  const t = g.node("Tanh", [u]);
  const slope = add(g, mul(g, square, c(3 * GELU_SCALE * GELU_CUBIC)), c(GELU_SCALE));
  const curve = mul(g, mul(g, x, slope), sub(g, c(1), mul(g, t, t)));
  return mul(g, c(0.5), add(g, add(g, t, c(1)), curve));
}

/** x / sqrt(mean(x²) + eps) · weight over the last axis (RMSNorm, arXiv 1910.07467). */
export function rmsNorm(g: GraphBuilder, x: Value, weight: Value, epsilon: number, name?: string): Value {
  const attributes = { axis: int(-1), epsilon: float(epsilon), stash_type: int(1) };
  const wanted = g.tape && [x, weight].some(g.tape.needs);
  const types = wanted ? (["float", "float"] as const) : (["float"] as const);
  const [y, scale] = g.nodes("SimplifiedLayerNormalization", [x, weight], types, { attributes, names: [name] });
  // With r = 1 / sqrt(mean(x²) + eps), n = x r and d = dy · weight: dx = r (d − n mean(d n)).
  differentiable(g, [y!], [x, weight], (dy) => {
    const normed = mul(g, x, scale!);
    return [
      () => {
        const d = mul(g, dy!, weight);
        const mean = g.node("ReduceMean", [mul(g, d, normed), g.int64s([-1])], { attributes: { keepdims: int(1) } });
        return mul(g, scale!, sub(g, d, mul(g, normed, mean)));
      },
      () => {
        const rows = concat(g, [g.int64s([-1]), shapeOf(g, weight, 0, 1)], 0);
        return sumFirst(g, reshape(g, mul(g, dy!, normed), rows));
      },
    ];
  });
  return y!;
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
  if (g.tape) {
    const sum = add(g, x, skip);
    return [rmsNorm(g, sum, weight, epsilon, name), sum];
  }
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
  const y = g.node("RotaryEmbedding", [x, positions, cos, sin], {
    domain: MICROSOFT,
    attributes: { num_heads: int(heads), interleaved: int(0) },
  });
  differentiable(g, [y], [x], (dy) => [() => rotary(g, dy!, positions, cos, g.node("Neg", [sin]), heads)]);
  return y;
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
