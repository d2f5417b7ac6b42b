/**
 * ggml's block quantisation in plain loops: the test writer beside the GGUF tests is made to be read and takes half a
 * minute for a hundred million weights.
 */
import { f32ToF16 } from "../../../src/model/dtype.ts";

export const BLOCK = 32;

export type MatrixType = "F32" | "Q8_0" | "Q4_0";

/** Values to the bytes of the tensor type; their number is a multiple of `BLOCK`. */
export function quantiseBlocks(type: MatrixType, values: Float32Array): Uint8Array {
  if (type === "F32") return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return type === "Q8_0" ? q8(values) : q4(values);
}

/** Per block: a half d = max|x| / 127, then 32 signed bytes round(x / d). */
function q8(values: Float32Array): Uint8Array {
  const scales = new Float32Array(values.length / BLOCK);
  for (let b = 0; b < scales.length; b++) scales[b] = Math.abs(extreme(values, b * BLOCK)) / 127;
  return assemble(scales, 34, (out, at, first, scale) => {
    const inverse = scale === 0 ? 0 : 1 / scale;
    for (let i = 0; i < BLOCK; i++) out[at + i] = Math.round(values[first + i]! * inverse);
  });
}

/** Per block: a half d, the value of largest magnitude / −8, then 16 bytes of two nibbles x / d + 8: i and i + 16. */
function q4(values: Float32Array): Uint8Array {
  const scales = new Float32Array(values.length / BLOCK);
  for (let b = 0; b < scales.length; b++) scales[b] = extreme(values, b * BLOCK) / -8;
  return assemble(scales, 18, (out, at, first, scale) => {
    const inverse = scale === 0 ? 0 : 1 / scale;
    for (let i = 0; i < BLOCK / 2; i++) {
      const low = Math.min(15, Math.floor(values[first + i]! * inverse + 8.5));
      const high = Math.min(15, Math.floor(values[first + BLOCK / 2 + i]! * inverse + 8.5));
      out[at + i] = low | (high << 4);
    }
  });
}

/** The value of largest magnitude, with its sign. */
function extreme(values: Float32Array, first: number): number {
  let found = 0;
  for (let i = first; i < first + BLOCK; i++) if (Math.abs(values[i]!) > Math.abs(found)) found = values[i]!;
  return found;
}

function assemble(
  scales: Float32Array,
  bytes: number,
  write: (out: Uint8Array, at: number, first: number, scale: number) => void,
): Uint8Array {
  const halves = f32ToF16(scales);
  const out = new Uint8Array(scales.length * bytes);
  for (let b = 0; b < scales.length; b++) {
    const at = b * bytes;
    out[at] = halves[b]! & 255;
    out[at + 1] = halves[b]! >> 8;
    write(out, at + 2, b * BLOCK, scales[b]!);
  }
  return out;
}
