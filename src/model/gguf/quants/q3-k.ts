import { halfTable } from "./half.ts";

/**
 * Q3_K, 256 values in 110 bytes: 32 bytes of third bits (bit j of byte i belongs to value i of sub-block j; a set bit
 * means "no −4"), 64 bytes of bit pairs as in Q2_K, 12 bytes of 6-bit scales (one per 16 values, offset 32), half d.
 * x = d·(scale − 32)·(q − 4·¬high).
 */
export function dequantiseQ3K(src: Uint8Array, out: Float32Array): void {
  const half = halfTable();
  for (let s = 0, o = 0; o < out.length; s += 110, o += 256) {
    const d = half[src[s + 108]! | (src[s + 109]! << 8)]!;
    for (let group = 0; group < 16; group++) {
      const scale = d * (unpackScale(src, s + 96, group) - 32);
      const column = 16 * (group & 1);
      const at = s + 32 + 32 * (group >> 3) + column;
      const shift = group & 6;
      for (let i = 0; i < 16; i++) {
        const high = (src[s + column + i]! >> (group >> 1)) & 1;
        out[o + 16 * group + i] = scale * (((src[at + i]! >> shift) & 3) - 4 * (1 - high));
      }
    }
  }
}

/** Low 4 bits: nibbles of bytes 0–7 (low nibbles are scales 0–7); upper 2 bits: bit pairs of bytes 8–11. */
function unpackScale(src: Uint8Array, at: number, group: number): number {
  const low = (src[at + (group & 7)]! >> (group < 8 ? 0 : 4)) & 15;
  const high = (src[at + 8 + (group & 3)]! >> (2 * (group >> 2))) & 3;
  return low | (high << 4);
}
