import { halfTable } from "./half.ts";

/** Q4_1, 32 values in 20 bytes: half d, half m, 16 bytes of nibbles as in Q4_0. x = d·q + m. */
export function dequantiseQ41(src: Uint8Array, out: Float32Array): void {
  const half = halfTable();
  for (let s = 0, o = 0; o < out.length; s += 20, o += 32) {
    const d = half[src[s]! | (src[s + 1]! << 8)]!;
    const m = half[src[s + 2]! | (src[s + 3]! << 8)]!;
    for (let i = 0; i < 16; i++) {
      const q = src[s + 4 + i]!;
      out[o + i] = d * (q & 15) + m;
      out[o + 16 + i] = d * (q >> 4) + m;
    }
  }
}
