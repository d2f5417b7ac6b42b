import { halfTable } from "./half.ts";

/**
 * Q6_K, 256 values in 210 bytes: 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 int8 scales (one per 16
 * values), half d. Each half of the block (128 values) takes 64 low bytes and 32 upper bytes: its quarters are the low
 * nibbles of the first and second 32 bytes, then their high nibbles. x = d·scale·(q − 32).
 */
export function dequantiseQ6K(src: Uint8Array, out: Float32Array): void {
  const half = halfTable();
  for (let s = 0, o = 0; o < out.length; s += 210, o += 256) {
    const d = half[src[s + 208]! | (src[s + 209]! << 8)]!;
    for (let quarter = 0; quarter < 8; quarter++) {
      const low = s + 64 * (quarter >> 2) + 32 * (quarter & 1);
      const lowShift = quarter & 2 ? 4 : 0;
      const high = s + 128 + 32 * (quarter >> 2);
      const highShift = 2 * (quarter & 3);
      for (let i = 0; i < 32; i++) {
        const scale = d * ((src[s + 192 + 2 * quarter + (i >> 4)]! << 24) >> 24);
        const q = ((src[low + i]! >> lowShift) & 15) | (((src[high + i]! >> highShift) & 3) << 4);
        out[o + 32 * quarter + i] = scale * (q - 32);
      }
    }
  }
}
