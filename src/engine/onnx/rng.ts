/**
 * Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a counter goes in, random bits
 * come out. A draw is named by (seed, sequence, step), so it never depends on what else is being sampled.
 */

const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;
const ROUNDS = 10;

export type Words = readonly [number, number, number, number];

/** Four unsigned 32-bit words from a 128-bit counter and a 64-bit key. */
export function philox(counter: Words, key: readonly [number, number]): Words {
  let [a, b, c, d] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < ROUNDS; round++) {
    const [high0, low0] = multiply(MULTIPLIER_0, a);
    const [high1, low1] = multiply(MULTIPLIER_1, c);
    [a, b, c, d] = [(high1 ^ b ^ k0) >>> 0, low1, (high0 ^ d ^ k1) >>> 0, low0];
    k0 = (k0 + WEYL_0) >>> 0;
    k1 = (k1 + WEYL_1) >>> 0;
  }
  return [a, b, c, d];
}

/** High and low word of a 32 × 32 bit product, by its 16-bit halves (BigInt would cost more than the model's head). */
function multiply(x: number, y: number): [number, number] {
  const [xl, xh, yl, yh] = [x & 0xffff, x >>> 16, y & 0xffff, y >>> 16];
  const cross1 = xl * yh;
  const cross2 = xh * yl;
  const carry = Math.floor((Math.floor((xl * yl) / 65536) + (cross1 % 65536) + (cross2 % 65536)) / 65536);
  const high = xh * yh + Math.floor(cross1 / 65536) + Math.floor(cross2 / 65536) + carry;
  return [high >>> 0, Math.imul(x, y) >>> 0];
}

/** Uniform in [0, 1) with 53 random bits. `seed` is any safe non-negative integer. */
export function uniform(seed: number, sequence: number, step: number): number {
  const key = [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0] as const;
  const [high, low] = philox([step >>> 0, sequence >>> 0, 0, 0], key);
  return ((high >>> 5) * 2 ** 26 + (low >>> 6)) / 2 ** 53;
}
