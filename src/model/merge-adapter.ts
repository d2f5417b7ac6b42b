/** A LoRA adapter added to its base: W + scale · B A, in the type of W, computed while it is read. */
import { setImmediate as turn } from "node:timers/promises";
import { fail } from "../errors.ts";
import type { AdapterFiles, AdapterTarget, Checkpoint, TensorLocation } from "./checkpoint.ts";
import { DTYPE_BYTES, decodeFloats, encodeFloats, type FloatDtype, isFloatDtype } from "./dtype.ts";
import type { TensorToWrite } from "./safetensors-write.ts";
import { readTensor, readTensorBytes } from "./tensor-data.ts";
import { linearShapes } from "./tensors.ts";

/** Some milliseconds of multiplication: other requests wait no longer for the thread. */
const MULTIPLICATIONS_AT_ONCE = 4_000_000;

/** The tensors of the merged model, read when their turn comes. Throws `unsupported_checkpoint` for quantised weights. */
export function mergedTensors(checkpoint: Checkpoint, adapter: AdapterFiles): TensorToWrite[] {
  const shapes = linearShapes(checkpoint.config);
  const targets = new Map(
    adapter.targets.map((target) => [`model.layers.${target.layer}.${shapes[target.module]!.path}.weight`, target]),
  );
  return Object.entries(checkpoint.tensors).map(([name, location]) => {
    const target = targets.get(name);
    const { dtype, shape } = location;
    if (!target) return { name, dtype, shape, data: () => readTensorBytes(location) };
    if (!isFloatDtype(dtype)) {
      throw fail(
        "unsupported_checkpoint",
        `the base's weights are ${dtype}; an adapter is merged into F32, F16 and BF16`,
      );
    }
    return { name, dtype, shape, data: () => mergedRows(location, dtype, target) };
  });
}

/** (out, in), some rows at a time. */
async function* mergedRows(
  location: TensorLocation,
  dtype: FloatDtype,
  { a, b, rank, scale }: AdapterTarget,
): AsyncGenerator<Uint8Array> {
  const columns = location.shape[1]!;
  const [A, B] = [await readTensor(a), await readTensor(b)]; // (rank, in), (out, rank)
  const rowBytes = columns * DTYPE_BYTES[dtype];
  const rowsAtOnce = Math.max(1, Math.floor(MULTIPLICATIONS_AT_ONCE / (columns * rank)));
  let row = 0;
  for await (const bytes of wholeRows(readTensorBytes(location), rowBytes)) {
    const W = decodeFloats(bytes, dtype);
    const rows = bytes.byteLength / rowBytes;
    for (let from = 0; from < rows; from += rowsAtOnce) {
      for (let r = from; r < Math.min(rows, from + rowsAtOnce); r++) {
        addRow(W.subarray(r * columns, (r + 1) * columns), A, B, (row + r) * rank, rank, scale);
      }
      await turn();
    }
    row += rows;
    yield encodeFloats(W, dtype);
  }
}

/** w += scale · b A for one row; sums in double precision, so that rounding happens once. */
function addRow(w: Float32Array, A: Float32Array, B: Float32Array, at: number, rank: number, scale: number): void {
  const columns = w.length;
  const sums = Float64Array.from(w);
  for (let k = 0; k < rank; k++) {
    const factor = B[at + k]! * scale;
    const offset = k * columns;
    for (let c = 0; c < columns; c++) sums[c]! += factor * A[offset + c]!;
  }
  w.set(sums);
}

/** Cuts a stream of bytes where rows end. */
async function* wholeRows(chunks: AsyncIterable<Uint8Array>, rowBytes: number): AsyncGenerator<Uint8Array> {
  let rest: Uint8Array = new Uint8Array(0);
  for await (const chunk of chunks) {
    const bytes = rest.byteLength === 0 ? chunk : Buffer.concat([rest, chunk]);
    const whole = bytes.byteLength - (bytes.byteLength % rowBytes);
    if (whole > 0) yield bytes.subarray(0, whole);
    rest = bytes.subarray(whole);
  }
}
