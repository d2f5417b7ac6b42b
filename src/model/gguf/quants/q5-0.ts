import { halfTable } from "./half.ts";

/** Q5_0, 32 values in 22 bytes: half d, 32 fifth bits, 16 bytes of nibbles as in Q4_0. x = d·(q − 16). */
export function dequantiseQ50(src: Uint8Array, out: Float32Array): void {
  const half = halfTable();
  for (let s = 0, o = 0; o < out.length; s += 22, o += 32) {
    const d = half[src[s]! | (src[s + 1]! << 8)]!;
    for (let i = 0; i < 16; i++) {
      const q = src[s + 6 + i]!;
      const high = (src[s + 2 + (i >> 3)]! >> (i & 7)) & 1;
      const highUpper = (src[s + 4 + (i >> 3)]! >> (i & 7)) & 1;
      out[o + i] = d * ((q & 15) + 16 * high - 16);
      out[o + 16 + i] = d * ((q >> 4) + 16 * highUpper - 16);
    }
  }
}
