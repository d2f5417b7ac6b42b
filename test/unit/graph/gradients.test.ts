import { describe, expect, test } from "vitest";
import { createSession, type Tensor, tensor } from "../../../src/engine/onnx/runtime.ts";
import { createGraph, type GraphBuilder } from "../../../src/graph/builder.ts";
import type { Value } from "../../../src/graph/ir.ts";
import { attend } from "../../../src/graph/ops/attend.ts";
import * as math from "../../../src/graph/ops/math.ts";
import * as shape from "../../../src/graph/ops/shape.ts";
import { encodeModel } from "../../../src/graph/proto/onnx.ts";
import { createTape, gradients, recomputed } from "../../../src/graph/tape.ts";
import { floats, noise } from "../../ort/fixture.ts";

/** Every op's backward against finite differences: the slow twin that cannot be wrong in the same way. */

/** Float32 sums of a few hundred terms with steps of this size are good to about 1e-3 of the largest entry. */
const STEP = 1e-2;
const TOLERANCE = 4e-3;

type Build = (g: GraphBuilder, inputs: Value[]) => Value | Value[];

interface Case {
  dims: number[][];
  build: Build;
  /** Other inputs, which no gradients flow to. */
  extra?: Record<string, Tensor>;
}

/** Gradients of Σ y · r for fixed random r, by the tape and by differences. */
function check({ dims, build, extra = {} }: Case): number {
  const values = dims.map((dim, i) => noise(size(dim), i + 1));
  const g = createGraph("op");
  const inputs = dims.map((dim, i) => g.input(`x${i}`, "float", dim));
  for (const [name, { type, dims: dim }] of Object.entries(extra)) {
    g.input(name, type === "int64" ? "int64" : type === "int32" ? "int32" : "float", dim);
  }
  g.tape = createTape(({ name }) => inputs.some((input) => input.name === name));
  const outputs = [build(g, inputs)].flat();
  const { tape } = g;
  // Every output gets weights of its own, made in the graph from its values' order: cos(1), cos(2), …
  const seeds = outputs.map((y) => [y, weightsLike(g, y)] as const);
  gradients(g, seeds);
  g.tape = null;
  const sums = seeds.map(([y, r]) => total(g, g.node("Mul", [y, r])));
  const sum = sums.reduce((a, b) => g.node("Add", [a, b]));
  g.output(sum);
  const found = inputs.map(({ name }) => tape!.trained.get(name));
  for (const gradient of found) if (gradient) g.output(gradient);
  const session = createSession(encodeModel(g.build()), { threads: 1, device: "cpu", plain: true });
  const run = (fetches: string[]) =>
    session.run(
      { ...extra, ...Object.fromEntries(values.map((data, i) => [`x${i}`, floats(dims[i]!, data)])) },
      fetches,
    );
  let worst = 0;
  for (const [i, gradient] of found.entries()) {
    expect(gradient, `input ${i} has a gradient`).toBeDefined();
    const analytic = run([gradient!.name])[gradient!.name] as Float32Array;
    const largest = analytic.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    expect(largest, `the gradient of input ${i} is not zero`).toBeGreaterThan(0);
    expect(analytic.length).toBe(values[i]!.length);
    for (let k = 0; k < analytic.length; k++) {
      const before = values[i]![k]!;
      const at = (x: number): number => {
        values[i]![k] = x;
        return (run([sum.name])[sum.name] as Float32Array)[0]!;
      };
      const numeric = (at(before + STEP) - at(before - STEP)) / (2 * STEP);
      values[i]![k] = before;
      worst = Math.max(worst, Math.abs(numeric - analytic[k]!) / Math.max(1, largest));
    }
  }
  session.dispose();
  return worst;
}

const size = (dims: readonly number[]): number => dims.reduce((product, dim) => product * dim, 1);

function weightsLike(g: GraphBuilder, y: Value): Value {
  const like = g.node("Shape", [y], { type: "int64" });
  const ones = g.node("Add", [shape.zerosLike(g, y), g.float(1)]);
  const flat = g.node("CumSum", [shape.reshape(g, ones, [-1]), g.int64(0)]);
  return shape.reshape(g, g.node("Cos", [flat]), like);
}

function total(g: GraphBuilder, x: Value): Value {
  return g.node("ReduceSum", [x], { attributes: { keepdims: { int: 0 } } });
}

const int64 = (dims: number[], values: number[]): Tensor => tensor("int64", dims, BigInt64Array.from(values, BigInt));
const half = 2;
const rope = {
  positions: int64([1, 3], [0, 2, 1]),
  cos: floats([4, half], noise(4 * half, 8)),
  sin: floats([4, half], noise(4 * half, 9)),
};
const named = (name: string, type: Value["type"] = "float"): Value => ({ name, type });

const CASES: Record<string, Case> = {
  add: {
    dims: [
      [2, 3],
      [2, 3],
    ],
    build: (g, [a, b]) => math.add(g, a!, b!),
  },
  "add, the same twice": { dims: [[2, 3]], build: (g, [a]) => math.add(g, a!, a!) },
  sub: {
    dims: [
      [2, 3],
      [2, 3],
    ],
    build: (g, [a, b]) => math.sub(g, a!, b!),
  },
  mul: {
    dims: [
      [2, 3],
      [2, 3],
    ],
    build: (g, [a, b]) => math.mul(g, a!, b!),
  },
  addRow: { dims: [[4, 3], [3]], build: (g, [x, row]) => math.addRow(g, x!, row!) },
  mulRow: {
    dims: [
      [4, 2, 3],
      [2, 3],
    ],
    build: (g, [x, row]) => math.mulRow(g, x!, row!),
  },
  repeatRow: { dims: [[3]], build: (g, [x]) => math.repeatRow(g, x!, 4) },
  exp: { dims: [[2, 3]], build: (g, [x]) => math.exp(g, x!) },
  matmul: {
    dims: [
      [2, 3, 4],
      [2, 4, 5],
    ],
    build: (g, [a, b]) => math.matmul(g, a!, b!),
  },
  matmulTransposed: {
    dims: [
      [3, 4],
      [5, 4],
    ],
    build: (g, [a, b]) => math.matmulTransposed(g, a!, b!, 0.5),
  },
  gather: {
    dims: [[4, 3]],
    extra: { ids: tensor("int32", [1, 5], Int32Array.of(0, 2, 2, 3, 1)) },
    build: (g, [table]) => math.gather(g, table!, named("ids", "int32")),
  },
  softmax: { dims: [[3, 4]], build: (g, [x]) => math.softmax(g, x!) },
  logSoftmax: { dims: [[3, 4]], build: (g, [x]) => math.logSoftmax(g, x!) },
  silu: { dims: [[3, 4]], build: (g, [x]) => math.silu(g, x!) },
  geluTanh: { dims: [[3, 4]], build: (g, [x]) => math.geluTanh(g, x!) },
  rmsNorm: { dims: [[3, 4], [4]], build: (g, [x, w]) => math.rmsNorm(g, x!, w!, 1e-5) },
  "rmsNorm of heads": { dims: [[3, 2, 4], [4]], build: (g, [x, w]) => math.rmsNorm(g, x!, w!, 1e-5) },
  skipRmsNorm: {
    dims: [[3, 4], [3, 4], [4]],
    build: (g, [x, skip, w]) => math.skipRmsNorm(g, x!, skip!, w!, 1e-5),
  },
  rotary: {
    dims: [[1, 3, 8]],
    extra: rope,
    build: (g, [x]) => math.rotary(g, x!, named("positions", "int64"), named("cos"), named("sin"), 2),
  },
  reshape: { dims: [[2, 6]], build: (g, [x]) => shape.reshape(g, x!, [3, -1]) },
  transpose: { dims: [[2, 3, 4]], build: (g, [x]) => shape.transpose(g, x!, [2, 0, 1]) },
  concat: {
    dims: [
      [2, 3],
      [2, 1],
    ],
    build: (g, [a, b]) => shape.concat(g, [a!, b!], 1),
  },
  split: { dims: [[2, 5]], build: (g, [x]) => shape.split(g, x!, 1, [2, 3]) },
  "split, one part unused": { dims: [[2, 5]], build: (g, [x]) => shape.split(g, x!, 1, [2, 3])[1]! },
  attend: {
    dims: [
      [2, 2, 3, 4],
      [2, 2, 3, 4],
      [2, 2, 3, 4],
    ],
    extra: { mask: floats([3, 3], Float32Array.of(0, -1e30, -1e30, 0, 0, -1e30, 0, 0, 0)) },
    build: (g, [q, key, value]) => attend(g, q!, key!, value!, named("mask"), 0.5),
  },
  repeatSecond: {
    dims: [[2, 1, 3]],
    build: (g, [x]) => math.repeatSecond(g, x!, g.int64s([3])),
  },
  recomputed: {
    dims: [[3, 4], [4, 4], [4]],
    build: (g, [x, w, row]) =>
      recomputed(g, [x!], ([inner]) => [math.silu(g, math.addRow(g, math.matmulTransposed(g, inner!, w!), row!))])[0]!,
  },
};

describe("gradients equal finite differences", () => {
  test.each(Object.entries(CASES))("%s", (_, how) => {
    expect(check(how)).toBeLessThan(TOLERANCE);
  });
});
