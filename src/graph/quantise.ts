/**
 * Block quantisation for com.microsoft.MatMulNBits: consecutive weights of a row share a scale (and a zero point).
 * 8 bits: q = round(w / scale) + 128 with scale = max|w| / 127. 4 bits with zero points: q = round(w / scale) + zero with
 * scale = (max − min) / 15. 4 bits without: q = round(w / scale) + 8 with scale = m / −8, m the weight of largest magnitude.
 */

export interface Scheme {
  bits: 8 | 4;
  /** Weights per scale. */
  block: number;
  /** A zero point per block; else 0 is 2^(bits − 1). */
  zeroPoints: boolean;
}

/**
 * `q8` and `q4`: blocks of 128, the fastest (engine.md 2.4). `q8_0` and `q4_0`: GGUF's blocks of 32, so that weights which
 * were such blocks once become the same numbers again.
 */
export const SCHEMES = {
  q8: { bits: 8, block: 128, zeroPoints: false },
  q4: { bits: 4, block: 128, zeroPoints: true },
  q8_0: { bits: 8, block: 32, zeroPoints: false },
  q4_0: { bits: 4, block: 32, zeroPoints: false },
} as const satisfies Record<string, Scheme>;

export interface QuantisedRows {
  /** (rows, blocks, block · bits / 8); of two 4-bit numbers in a byte the first is the lower half. */
  packed: Uint8Array;
  /** (rows, blocks) */
  scales: Float32Array;
  /** Schemes with zero points only: (rows, ⌈blocks / 2⌉), two in a byte. */
  zeros: Uint8Array;
}

export const blocksOf = (columns: number, { block }: Scheme): number => Math.ceil(columns / block);
export const blockBytes = ({ block, bits }: Scheme): number => (block * bits) / 8;
export const packedBytesPerRow = (columns: number, scheme: Scheme): number =>
  blocksOf(columns, scheme) * blockBytes(scheme);
export const zeroBytesPerRow = (columns: number, scheme: Scheme): number =>
  scheme.zeroPoints ? Math.ceil(blocksOf(columns, scheme) / 2) : 0;

/** `values` (rows, columns), row major. A last block that is not full is filled with what stands for 0. */
export function quantiseRows(values: Float32Array, columns: number, scheme: Scheme): QuantisedRows {
  const rows = values.length / columns;
  const blocks = blocksOf(columns, scheme);
  const { block: size } = scheme;
  const zeroBytes = zeroBytesPerRow(columns, scheme);
  const out: QuantisedRows = {
    packed: new Uint8Array(rows * packedBytesPerRow(columns, scheme)),
    scales: new Float32Array(rows * blocks),
    zeros: new Uint8Array(rows * zeroBytes),
  };
  for (let row = 0; row < rows; row++) {
    for (let block = 0; block < blocks; block++) {
      const start = row * columns + block * size;
      const at = row * blocks + block;
      const span = { start, count: Math.min(size, columns - block * size), size, at };
      if (scheme.bits === 8) quantise8(values, span, out);
      else if (!scheme.zeroPoints) quantise4Symmetric(values, span, out);
      else {
        const zero = quantise4(values, span, out);
        out.zeros[row * zeroBytes + (block >> 1)]! |= zero << (4 * (block & 1));
      }
    }
  }
  return out;
}

/** One block: `count` weights from `start`, to be the `at`-th block of `size`. Plain loops: hundreds of millions pass here. */
interface Span {
  start: number;
  count: number;
  size: number;
  at: number;
}

function quantise8(values: Float32Array, span: Span, { packed, scales }: QuantisedRows): void {
  const { start, count, size, at } = span;
  const scale = Math.fround(Math.abs(largest(values, span)) / 127);
  const inverse = scale > 0 ? 1 / scale : 0;
  scales[at] = scale;
  const to = at * size;
  // Between 1 and 255.5 after the shift, so adding a half and cutting rounds to nearest.
  for (let i = 0; i < count; i++) packed[to + i] = (values[start + i]! * inverse + 128.5) | 0;
  packed.fill(128, to + count, to + size);
}

/** Returns the zero point. */
function quantise4(values: Float32Array, span: Span, out: QuantisedRows): number {
  const { start, count, at } = span;
  let least = 0;
  let most = 0;
  for (let i = start; i < start + count; i++) {
    const w = values[i]!;
    if (w > most) most = w;
    else if (w < least) least = w;
  }
  const scale = Math.fround((most - least) / 15);
  const inverse = scale > 0 ? 1 / scale : 0;
  const zero = Math.min(15, Math.round(-least * inverse));
  out.scales[at] = scale;
  pack4(values, span, inverse, zero, out.packed);
  return zero;
}

function quantise4Symmetric(values: Float32Array, span: Span, out: QuantisedRows): void {
  const scale = scaleOfLevels(values, span);
  out.scales[span.at] = scale;
  pack4(values, span, scale === 0 ? 0 : 1 / scale, 8, out.packed);
}

/**
 * GGUF's Q4_0 takes the level −8 for the weight of largest magnitude; other writers search for a scale that leaves it at
 * another level. If the weights are exact multiples of some scale (they were such a block once), that one is theirs.
 */
const LEVELS = [-8, 7, -7, 6, -6, 5, -5, 4, -4, 3, -3, 2, -2, 1, -1];

function scaleOfLevels(values: Float32Array, span: Span): number {
  const most = largest(values, span);
  const usual = Math.fround(most / -8);
  if (usual === 0) return 0;
  for (const level of LEVELS) {
    const scale = Math.fround(most / level);
    if (areLevels(values, span, scale)) return scale;
  }
  return usual;
}

/** Whether every weight is scale · q, q = −8…7, to the bit. Of other weights the first one or two already are not. */
function areLevels(values: Float32Array, { start, count }: Span, scale: number): boolean {
  const inverse = 1 / scale;
  for (let i = start; i < start + count; i++) {
    const q = Math.round(values[i]! * inverse);
    if (q < -8 || q > 7 || Math.fround(q * scale) !== values[i]!) return false;
  }
  return true;
}

/** The weight of largest magnitude, with its sign. */
function largest(values: Float32Array, { start, count }: Span): number {
  let most = 0;
  let magnitude = 0;
  for (let i = start; i < start + count; i++) {
    const w = values[i]!;
    const size = w < 0 ? -w : w;
    if (size > magnitude) {
      most = w;
      magnitude = size;
    }
  }
  return most;
}

function pack4(
  values: Float32Array,
  { start, count, size, at }: Span,
  inverse: number,
  zero: number,
  packed: Uint8Array,
): void {
  const to = (at * size) >> 1;
  const shift = zero + 0.5;
  for (let i = 0; i < size; i += 2) {
    const low = i < count ? (values[start + i]! * inverse + shift) | 0 : zero;
    const high = i + 1 < count ? (values[start + i + 1]! * inverse + shift) | 0 : zero;
    // A rounded zero point may push either end of the range half a step out; +8 does not fit four bits.
    packed[to + (i >> 1)] = clamp4(low) | (clamp4(high) << 4);
  }
}

const clamp4 = (q: number): number => (q < 0 ? 0 : q > 15 ? 15 : q);
