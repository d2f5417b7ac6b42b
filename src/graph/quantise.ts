/**
 * Block quantisation for com.microsoft.MatMulNBits: every 32 consecutive weights of a row share a scale.
 * 8 bits are symmetric, q = round(w / scale) + 128 with scale = max|w| / 127; 4 bits have a zero point each,
 * q = round(w / scale) + zero with scale = (max − min) / 15. Blocks of 32 keep rows independent of each other's number.
 */
export const BLOCK = 32;

export type Bits = 8 | 4;

export interface QuantisedRows {
  /** (rows, blocks, 32 · bits / 8); of two 4-bit numbers in a byte the first is the lower half. */
  packed: Uint8Array;
  /** (rows, blocks) */
  scales: Float32Array;
  /** 4 bits only: (rows, ⌈blocks / 2⌉), two in a byte. */
  zeros: Uint8Array;
}

export const blocksOf = (columns: number): number => Math.ceil(columns / BLOCK);
export const packedBytesPerRow = (columns: number, bits: Bits): number => (blocksOf(columns) * BLOCK * bits) / 8;
export const zeroBytesPerRow = (columns: number): number => Math.ceil(blocksOf(columns) / 2);

/** `values` (rows, columns), row major. A last block that is not full is filled with what stands for 0. */
export function quantiseRows(values: Float32Array, columns: number, bits: Bits): QuantisedRows {
  const rows = values.length / columns;
  const blocks = blocksOf(columns);
  const out: QuantisedRows = {
    packed: new Uint8Array(rows * packedBytesPerRow(columns, bits)),
    scales: new Float32Array(rows * blocks),
    zeros: new Uint8Array(bits === 4 ? rows * zeroBytesPerRow(columns) : 0),
  };
  const quantise = bits === 8 ? quantise8 : quantise4;
  for (let row = 0; row < rows; row++) {
    for (let block = 0; block < blocks; block++) {
      const start = row * columns + block * BLOCK;
      quantise(values, start, Math.min(BLOCK, columns - block * BLOCK), out, row, block, blocks);
    }
  }
  return out;
}

/** One block: `count` weights from `start`. Plain loops: a hundred million weights pass through here at load. */
type QuantiseBlock = (
  values: Float32Array,
  start: number,
  count: number,
  out: QuantisedRows,
  row: number,
  block: number,
  blocks: number,
) => void;

const quantise8: QuantiseBlock = (values, start, count, { packed, scales }, row, block, blocks) => {
  let most = 0;
  for (let i = start; i < start + count; i++) {
    const w = values[i]!;
    if (w > most) most = w;
    else if (-w > most) most = -w;
  }
  const scale = Math.fround(most / 127);
  const inverse = scale > 0 ? 1 / scale : 0;
  const at = row * blocks + block;
  scales[at] = scale;
  const to = at * BLOCK;
  // Between 1 and 255.5 after the shift, so adding a half and cutting rounds to nearest.
  for (let i = 0; i < count; i++) packed[to + i] = (values[start + i]! * inverse + 128.5) | 0;
  packed.fill(128, to + count, to + BLOCK);
};

const quantise4: QuantiseBlock = (values, start, count, { packed, scales, zeros }, row, block, blocks) => {
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
  const at = row * blocks + block;
  scales[at] = scale;
  zeros[row * Math.ceil(blocks / 2) + (block >> 1)]! |= zero << (4 * (block & 1));
  const to = (at * BLOCK) >> 1;
  const shift = zero + 0.5;
  for (let i = 0; i < BLOCK; i += 2) {
    const low = i < count ? (values[start + i]! * inverse + shift) | 0 : zero;
    const high = i + 1 < count ? (values[start + i + 1]! * inverse + shift) | 0 : zero;
    // The rounded zero point may push either end of the range half a step out.
    packed[to + (i >> 1)] = clamp4(low) | (clamp4(high) << 4);
  }
};

const clamp4 = (q: number): number => (q < 0 ? 0 : q > 15 ? 15 : q);
