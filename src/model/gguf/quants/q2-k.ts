import { halfTable } from "./half.ts";

/**
 * Q2_K, 256 values in 84 bytes: 16 bytes of scale (low nibble) and minimum (high nibble) per 16 values, 64 bytes of bit
 * pairs (each half of the block takes 32 bytes, whose four bit pairs are its four quarters), half d, half dmin.
 * x = d·scale·q − dmin·min.
 */
export function dequantiseQ2K(src: Uint8Array, out: Float32Array): void {
  const half = halfTable();
  for (let s = 0, o = 0; o < out.length; s += 84, o += 256) {
    const d = half[src[s + 80]! | (src[s + 81]! << 8)]!;
    const dmin = half[src[s + 82]! | (src[s + 83]! << 8)]!;
    for (let group = 0; group < 16; group++) {
      const scale = d * (src[s + group]! & 15);
      const minimum = dmin * (src[s + group]! >> 4);
      const at = s + 16 + 32 * (group >> 3) + 16 * (group & 1);
      const shift = group & 6;
      for (let i = 0; i < 16; i++) out[o + 16 * group + i] = scale * ((src[at + i]! >> shift) & 3) - minimum;
    }
  }
}
