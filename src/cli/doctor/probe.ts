import { createSession, tensor } from "../../engine/onnx/runtime.ts";
import { createGraph } from "../../graph/builder.ts";
import { matmul } from "../../graph/ops/math.ts";
import { encodeModel } from "../../graph/proto/onnx.ts";

/** (2, 2) × (2, 2) through a graph of our own and ONNX Runtime; throws when the product is wrong or nothing loads. */
export function multiplyOn(device: string): void {
  const g = createGraph("doctor");
  const a = g.input("a", "float", [2, 2]);
  const b = g.input("b", "float", [2, 2]);
  const product = matmul(g, a, b);
  g.output(product, [2, 2]);
  const session = createSession(encodeModel(g.build()), { threads: 1, device });
  const feeds = {
    a: tensor("float32", [2, 2], Float32Array.of(1, 2, 3, 4)),
    b: tensor("float32", [2, 2], Float32Array.of(5, 6, 7, 8)),
  };
  const result = [...(session.run(feeds, [product.name])[product.name] ?? [])].join(" ");
  session.dispose();
  if (result !== "19 22 43 50") throw new Error(`a matrix product came out wrong on ${device}: ${result}`);
}
