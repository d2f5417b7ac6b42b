import { halfTable } from "./half.ts";
import { unpackKScales } from "./k-scales.ts";

/**
 * Q5_K, 256 values in 176 bytes: half d, half dmin, 12 bytes of packed scales, 32 bytes of fifth bits (bit j of byte i
 * belongs to value i of sub-block j), 128 bytes of nibbles as in Q4_K. x = d·scale·q − dmin·min.
 */
export function dequantiseQ5K(src: Uint8Array, out: Float32Array): void {
  const half = halfTable();
  const scales = new Uint8Array(8);
  const minima = new Uint8Array(8);
  for (let s = 0, o = 0; o < out.length; s += 176, o += 256) {
    const d = half[src[s]! | (src[s + 1]! << 8)]!;
    const dmin = half[src[s + 2]! | (src[s + 3]! << 8)]!;
    unpackKScales(src, s + 4, scales, minima);
    for (let pair = 0; pair < 4; pair++) {
      const d0 = d * scales[2 * pair]!;
      const d1 = d * scales[2 * pair + 1]!;
      const m0 = dmin * minima[2 * pair]!;
      const m1 = dmin * minima[2 * pair + 1]!;
      for (let i = 0; i < 32; i++) {
        const q = src[s + 48 + 32 * pair + i]!;
        const high = src[s + 16 + i]! >> (2 * pair);
        out[o + 64 * pair + i] = d0 * ((q & 15) + 16 * (high & 1)) - m0;
        out[o + 64 * pair + 32 + i] = d1 * ((q >> 4) + 16 * ((high >> 1) & 1)) - m1;
      }
    }
  }
}
