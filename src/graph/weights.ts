import { fail } from "../errors.ts";
import type { Checkpoint, TensorLocation } from "../model/checkpoint.ts";
import type { GraphBuilder } from "./builder.ts";
import type { ElementType, Value } from "./ir.ts";
import { add, cast, matmulTransposed } from "./ops/math.ts";
import { matmulQuantised } from "./ops/quantised.ts";
import type { Bits } from "./quantise.ts";

/** Quantised copies of matrices, by the name of the tensor they stand for. */
export type QuantisedWeights = ReadonlyMap<string, QuantisedMatrix>;

export interface QuantisedMatrix {
  bits: Bits;
  /** (out, in) of the original. */
  shape: readonly [number, number];
  packed: TensorLocation;
  scales: TensorLocation;
  /** 4 bits only. */
  zeros: TensorLocation | null;
}

/** Tensors of a checkpoint as graph values. The graph names file, offset and length; ONNX Runtime maps the bytes. */
export interface Weights {
  /** As stored (bf16 and f16 stay so): for lookups of few rows. */
  stored(name: string): Value;
  /** In float; a cast of a constant is folded when the session loads. */
  float(name: string): Value;
  /** (N, in) → (N, out) by the matrix `name` (out, in), quantised where a quantised copy exists. `output` names the result. */
  product(x: Value, name: string, output?: string): Value;
  /** `product` by `<name>.weight`, and `<name>.bias` where the family has one. */
  linear(x: Value, name: string, bias: boolean): Value;
}

/** Matrices that `product` multiplies by: every projection and the head. */
export function isMatrix({ config, tensors }: Checkpoint, name: string): boolean {
  if (name === "model.embed_tokens.weight") return config.tiedHead;
  return tensors[name]?.shape.length === 2;
}

const ELEMENT: Partial<Record<TensorLocation["dtype"], ElementType>> = {
  F32: "float",
  F16: "float16",
  BF16: "bfloat16",
  U8: "uint8",
};

export function createWeights(
  g: GraphBuilder,
  checkpoint: Pick<Checkpoint, "tensors">,
  quantised: QuantisedWeights,
): Weights {
  const widened = new Map<string, Value>();

  function external(name: string, tensor: TensorLocation): Value {
    const type = ELEMENT[tensor.dtype];
    if (!type) throw fail("unsupported_checkpoint", `tensor ${name} is ${tensor.dtype}; use F32, F16 or BF16 weights`);
    // Absolute locations are refused; relative to the root folder of runtime.ts any file can be named.
    const location = tensor.path.replace(/^\/+/, "");
    return g.external(name, type, tensor.shape, { location, offset: tensor.offset, bytes: tensor.bytes });
  }

  function stored(name: string): Value {
    const tensor = checkpoint.tensors[name];
    if (!tensor) throw fail("invalid_checkpoint", `the checkpoint has no tensor ${name}`);
    return external(name, tensor);
  }

  function float(name: string): Value {
    const known = widened.get(name) ?? cast(g, stored(name), "float");
    widened.set(name, known);
    return known;
  }

  function product(x: Value, name: string, output?: string): Value {
    const matrix = quantised.get(name);
    if (!matrix) return matmulTransposed(g, x, float(name), 1, output);
    const [rows, columns] = matrix.shape;
    const weight = {
      bits: matrix.bits,
      rows,
      columns,
      packed: external(`${name}.packed`, matrix.packed),
      scales: external(`${name}.scales`, matrix.scales),
      zeros: matrix.zeros && external(`${name}.zeros`, matrix.zeros),
    };
    return matmulQuantised(g, x, weight, output);
  }

  return {
    stored,
    float,
    product,
    linear(x, name, bias) {
      const y = product(x, `${name}.weight`);
      return bias ? add(g, y, float(`${name}.bias`)) : y;
    },
  };
}
