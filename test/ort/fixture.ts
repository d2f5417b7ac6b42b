import { createSession, type Session, type Tensor, tensor } from "../../src/engine/onnx/runtime.ts";
import { createGraph, type GraphBuilder } from "../../src/graph/builder.ts";
import { encodeModel } from "../../src/graph/proto/onnx.ts";

/** A session from a few lines of graph. */
export function session(build: (g: GraphBuilder) => void, threads = 2): Session {
  const g = createGraph("fact");
  build(g);
  return createSession(encodeModel(g.build()), { threads, device: "cpu" });
}

/** Numbers without a pattern that would hide a wrong order, the same every time. */
export function noise(length: number, seed = 1): Float32Array {
  let state = seed >>> 0;
  return Float32Array.from({ length }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

export const floats = (dims: number[], data: Float32Array): Tensor => tensor("float32", dims, data);

export const sameBits = (a: Float32Array, b: Float32Array): boolean =>
  Buffer.compare(
    new Uint8Array(a.buffer, a.byteOffset, a.byteLength),
    new Uint8Array(b.buffer, b.byteOffset, b.byteLength),
  ) === 0;
