import { createGraph } from "../../graph/builder.ts";
import { matmulQuantised } from "../../graph/ops/quantised.ts";
import { encodeModel } from "../../graph/proto/onnx.ts";
import { quantiseRows, type Scheme } from "../../graph/quantise.ts";
import { noise } from "./noise.ts";
import { createSession, type SessionOptions, tensor } from "./runtime.ts";

/** A matrix of several blocks of either size, and numbers of rows on both sides of what a kernel takes in one go. */
const [COLUMNS, ROWS, MOST] = [576, 192, 64];
const ODD = [1, 3, 31, 63];

/**
 * Some kernels take rows in pairs and compute the last of an odd number of them in another order, so that what a row becomes would
 * depend on how many there are (engine.md 2.7). Which do depends on block size and processor (blocks of 32 at 4 bits: on AVX2, not
 * with AVX-512), so it is tried: some tens of milliseconds per load.
 */
export function needsEvenRows(scheme: Scheme, options: SessionOptions): boolean {
  const g = createGraph("row-order");
  const { packed, scales, zeros } = quantiseRows(noise(ROWS * COLUMNS, 3), COLUMNS, scheme);
  const blocks = Math.ceil(COLUMNS / scheme.block);
  const weight = {
    scheme,
    rows: ROWS,
    columns: COLUMNS,
    packed: g.constant("uint8", [ROWS, blocks, packed.length / (ROWS * blocks)], packed),
    scales: g.constant("float", [ROWS * blocks], new Uint8Array(scales.buffer, scales.byteOffset, scales.byteLength)),
    zeros: scheme.zeroPoints ? g.constant("uint8", [zeros.length], zeros) : null,
  };
  g.output(matmulQuantised(g, g.input("x", "float", ["M", COLUMNS]), weight, "y"));
  const session = createSession(encodeModel(g.build()), options);
  const x = noise(MOST * COLUMNS, 5);
  const product = (rows: number): Float32Array =>
    session.run({ x: tensor("float32", [rows, COLUMNS], x.subarray(0, rows * COLUMNS)) }, ["y"]).y as Float32Array;
  try {
    const whole = product(MOST).slice();
    return ODD.some((rows) => product(rows).some((value, i) => value !== whole[i]));
  } finally {
    session.dispose();
  }
}
