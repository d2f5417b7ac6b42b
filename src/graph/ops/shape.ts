import type { GraphBuilder } from "../builder.ts";
import { int, ints, type Value } from "../ir.ts";
import { differentiable } from "../tape.ts";

/** Ops that move numbers without computing on them, each with its backward under its forward. */

/** A shape: sizes, with 0 = keep this dimension and −1 = whatever remains; or an int64 vector computed in the graph. */
export type Shape = readonly number[] | Value;

export function reshape(g: GraphBuilder, x: Value, shape: Shape, name?: string): Value {
  const y = g.node("Reshape", [x, isValue(shape) ? shape : g.int64s(shape)], name ? { names: [name] } : {});
  // Its shape is noted now: asking later would keep x itself.
  const before = g.tape?.needs(x) ? g.node("Shape", [x], { type: "int64" }) : null;
  differentiable(g, [y], [x], (dy) => [() => reshape(g, dy!, before!)]);
  return y;
}

export function transpose(g: GraphBuilder, x: Value, order: readonly number[], name?: string): Value {
  const y = g.node("Transpose", [x], { attributes: { perm: ints(order) }, ...(name ? { names: [name] } : {}) });
  const back = order.map((_, axis) => order.indexOf(axis));
  differentiable(g, [y], [x], (dy) => [() => transpose(g, dy!, back)]);
  return y;
}

export function concat(g: GraphBuilder, values: readonly Value[], axis: number): Value {
  // The kernel would copy it.
  if (values.length === 1) return values[0]!;
  const y = g.node("Concat", values, { attributes: { axis: int(axis) } });
  if (g.tape && values.some(g.tape.needs)) {
    const sizes = concat(
      g,
      values.map((value) => shapeOf(g, value, axis, axis + 1)),
      0,
    );
    differentiable(g, [y], values, (dy) => {
      const parts = splitBy(g, dy!, axis, sizes, values.length);
      return parts.map((part) => () => part);
    });
  }
  return y;
}

/** Parts along an axis, of sizes known when the graph is built. */
export function split(g: GraphBuilder, x: Value, axis: number, sizes: readonly number[]): Value[] {
  return splitBy(g, x, axis, g.int64s(sizes), sizes.length);
}

/** Parts along an axis; `sizes` is an int64 vector of as many numbers. */
export function splitBy(g: GraphBuilder, x: Value, axis: number, sizes: Value, count: number): Value[] {
  const types = new Array<typeof x.type>(count).fill(x.type);
  const parts = g.nodes("Split", [x, sizes], types, { attributes: { axis: int(axis) } });
  differentiable(g, parts, [x], (...dParts) => [() => concat(g, dParts, axis)]);
  return parts;
}

/** Sizes of dimensions start…end−1 as an int64 vector. */
export function shapeOf(g: GraphBuilder, x: Value, start: number, end: number): Value {
  return g.node("Shape", [x], { type: "int64", attributes: { start: int(start), end: int(end) } });
}

/** Rows of zeros after the last one of `axis`. */
export function padEnd(g: GraphBuilder, x: Value, rank: number, axis: number, rows: number): Value {
  const pads = new Array<number>(rank * 2).fill(0);
  pads[rank + axis] = rows;
  return g.node("Pad", [x, g.int64s(pads)]);
}

/** Drops the last `rows` of `axis`. */
export function dropEnd(g: GraphBuilder, x: Value, axis: number, rows: number): Value {
  return g.node("Slice", [x, g.int64s([0]), g.int64s([-rows]), g.int64s([axis])]);
}

export function zerosLike(g: GraphBuilder, x: Value): Value {
  return g.node("ConstantOfShape", [g.node("Shape", [x], { type: "int64" })], { type: "float" });
}

function isValue(shape: Shape): shape is Value {
  return !Array.isArray(shape);
}
