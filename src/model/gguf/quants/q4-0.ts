import { halfTable } from "./half.ts";

/** Q4_0, 32 values in 18 bytes: half d, 16 bytes whose low nibbles are values 0–15 and high nibbles 16–31. x = d·(q − 8). */
export function dequantiseQ40(src: Uint8Array, out: Float32Array): void {
  const half = halfTable();
  for (let s = 0, o = 0; o < out.length; s += 18, o += 32) {
    const d = half[src[s]! | (src[s + 1]! << 8)]!;
    for (let i = 0; i < 16; i++) {
      const q = src[s + 2 + i]!;
      out[o + i] = d * ((q & 15) - 8);
      out[o + 16 + i] = d * ((q >> 4) - 8);
    }
  }
}
