import { halfTable } from "./half.ts";

/** Q5_1, 32 values in 24 bytes: half d, half m, 32 fifth bits, 16 bytes of nibbles as in Q4_0. x = d·q + m. */
export function dequantiseQ51(src: Uint8Array, out: Float32Array): void {
  const half = halfTable();
  for (let s = 0, o = 0; o < out.length; s += 24, o += 32) {
    const d = half[src[s]! | (src[s + 1]! << 8)]!;
    const m = half[src[s + 2]! | (src[s + 3]! << 8)]!;
    for (let i = 0; i < 16; i++) {
      const q = src[s + 8 + i]!;
      const high = (src[s + 4 + (i >> 3)]! >> (i & 7)) & 1;
      const highUpper = (src[s + 6 + (i >> 3)]! >> (i & 7)) & 1;
      out[o + i] = d * ((q & 15) + 16 * high) + m;
      out[o + 16 + i] = d * ((q >> 4) + 16 * highUpper) + m;
    }
  }
}
