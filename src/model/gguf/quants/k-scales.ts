/**
 * Q4_K and Q5_K pack 8 scales and 8 minima of 6 bits into 12 bytes: bytes 0–3 hold scales 0–3 in their low 6 bits,
 * bytes 4–7 minima 0–3, bytes 8–11 the low 4 bits of scale (low nibble) and minimum (high nibble) 4–7, whose upper
 * 2 bits lie in the top of bytes 0–3 and 4–7.
 */
export function unpackKScales(src: Uint8Array, at: number, scales: Uint8Array, minima: Uint8Array): void {
  for (let j = 0; j < 4; j++) {
    const a = src[at + j]!;
    const b = src[at + 4 + j]!;
    const c = src[at + 8 + j]!;
    scales[j] = a & 63;
    minima[j] = b & 63;
    scales[j + 4] = (c & 15) | ((a >> 6) << 4);
    minima[j + 4] = (c >> 4) | ((b >> 6) << 4);
  }
}
