import { halfTable } from "./half.ts";

/** Q8_0, 32 values in 34 bytes: half d, 32 × int8 q. x = d·q. `out` holds 32 values per block of `src`. */
export function dequantiseQ80(src: Uint8Array, out: Float32Array): void {
  const half = halfTable();
  for (let s = 0, o = 0; o < out.length; s += 34, o += 32) {
    const d = half[src[s]! | (src[s + 1]! << 8)]!;
    for (let i = 0; i < 32; i++) out[o + i] = d * ((src[s + 2 + i]! << 24) >> 24);
  }
}
