import { fail } from "../errors.ts";
import type { Checkpoint, TensorLocation } from "../model/checkpoint.ts";
import type { GraphBuilder } from "./builder.ts";
import type { ElementType, Value } from "./ir.ts";
import type { Matrix, PackedMatrix, PackedTensor } from "./matrices.ts";
import { cast, fusedMatmul, matmul, matmulTransposed } from "./ops/math.ts";
import { matmulQuantised } from "./ops/quantised.ts";
import { concat } from "./ops/shape.ts";
import { differentiable } from "./tape.ts";

/** Tensors of a checkpoint as graph values. The graph names file, offset and length; ONNX Runtime maps the bytes. */
export interface Weights {
  /** As stored (bf16 and f16 stay so): for lookups of few rows. */
  stored(name: string): Value;
  /** In float; a cast of a constant is folded when the session loads. */
  float(name: string): Value;
  /** (N, in) → (N, out) by a matrix (out, in), packed where a packed copy exists. `output` names the result. */
  product(x: Value, matrix: Matrix, output?: string): Value;
  /** Vectors in float, one after the other: the biases of a stacked matrix. */
  bias(names: readonly string[]): Value;
}

const ELEMENT: Partial<Record<TensorLocation["dtype"], ElementType>> = {
  F32: "float",
  F16: "float16",
  BF16: "bfloat16",
};

/**
 * Where weights come from. `files`: they stay there. `tensors`: each is an input of the graph, in float, because it is
 * trained. `matrices`: frozen ones that the caller holds in float; a stacked matrix is one input, under its own name.
 */
export type WeightSource = "files" | "tensors" | "matrices";

export function createWeights(
  g: GraphBuilder,
  checkpoint: Pick<Checkpoint, "tensors">,
  packed: ReadonlyMap<string, PackedMatrix> | null,
  source: WeightSource = "files",
): Weights {
  const widened = new Map<string, Value>();

  function stored(name: string): Value {
    const tensor = checkpoint.tensors[name];
    if (!tensor) throw fail("invalid_checkpoint", `the checkpoint has no tensor ${name}`);
    if (source !== "files") return g.input(name, "float", tensor.shape);
    const type = ELEMENT[tensor.dtype];
    if (!type) throw fail("unsupported_checkpoint", `tensor ${name} is ${tensor.dtype}; use F32, F16 or BF16 weights`);
    const location = externalLocation(tensor.path);
    return g.external(name, type, tensor.shape, { location, offset: tensor.offset, bytes: tensor.bytes });
  }

  function float(name: string): Value {
    const known = widened.get(name) ?? cast(g, stored(name), "float");
    widened.set(name, known);
    return known;
  }

  /** By the first axis; folded at load like the casts. */
  function stacked(names: readonly string[]): Value {
    const [first, ...rest] = names.map(float);
    if (!first) throw fail("internal_error", "a matrix without parts");
    return rest.length === 0 ? first : concat(g, [first, ...rest], 0);
  }

  function product(x: Value, matrix: Matrix, output?: string): Value {
    if (source === "matrices" && matrix.parts.length > 1) {
      return matmulTransposed(g, x, g.input(matrix.name, "float", [matrix.rows, matrix.columns]));
    }
    if (g.tape && source === "files") return frozenProduct(x, matrix);
    const known = packed?.get(matrix.name);
    if (!known) return matmulTransposed(g, x, stacked(matrix.parts), 1, output);
    const external = (part: string, { type, dims, data }: PackedTensor): Value =>
      g.external(`${matrix.name}.${part}`, type, dims, data);
    const weight = external("weight", known.weight);
    const { scheme, scales, zeros, rows, columns } = known;
    if (!scheme || !scales) return matmulTransposed(g, x, weight, 1, output);
    const parts = { scales: external("scales", scales), zeros: zeros ? external("zeros", zeros) : null };
    return matmulQuantised(g, x, { scheme, rows, columns, packed: weight, ...parts }, output);
  }

  /** Widened and stacked again for the backward pass: kept from one to the other, all weights together would be held in float. */
  function frozenProduct(x: Value, { parts }: Matrix): Value {
    const weight = (): Value => {
      const widened = parts.map((name) => cast(g, stored(name), "float"));
      return widened.length === 1 ? widened[0]! : concat(g, widened, 0);
    };
    const y = fusedMatmul(g, x, weight(), { transB: true });
    differentiable(g, [y], [x], (dy) => [() => matmul(g, dy!, weight())]);
    return y;
  }

  return { stored, float, product, bias: stacked };
}

/** Absolute locations are refused; relative to the root folder of runtime.ts any file can be named. */
export const externalLocation = (file: string): string => file.replace(/^\/+/, "");
