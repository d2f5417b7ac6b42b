import { createSession, tensor } from "../../src/engine/onnx/runtime.ts";
import { createGraph } from "../../src/graph/builder.ts";
import { matmulTransposed } from "../../src/graph/ops/math.ts";
import { encodeModel } from "../../src/graph/proto/onnx.ts";

/** FLOP/s of an fp32 product of the size that scoring uses. */
export function matmulRate(threads: number): number {
  const [m, k, n] = [512, 1024, 4096];
  const g = createGraph("rate");
  const x = g.input("x", "float", ["M", k]);
  const data = Float32Array.from({ length: k * n }, (_, i) => Math.sin(i));
  g.output(matmulTransposed(g, x, g.constant("float", [n, k], new Uint8Array(data.buffer)), 1, "y"));
  const session = createSession(encodeModel(g.build()), { threads, device: "cpu" });
  const feeds = { x: tensor("float32", [m, k], data) };
  let fastest = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 20; i++) {
    const started = performance.now();
    session.run(feeds, ["y"]);
    fastest = Math.min(fastest, (performance.now() - started) / 1000);
  }
  session.dispose();
  return (2 * m * k * n) / fastest;
}
