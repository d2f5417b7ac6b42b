import { expect, test } from "vitest";
import {
  type Bits,
  BLOCK,
  blocksOf,
  packedBytesPerRow,
  quantiseRows,
  zeroBytesPerRow,
} from "../../../src/graph/quantise.ts";

/** The slow twin: back to floats, one weight at a time, by the formulas of the format. */
function dequantise(values: ReturnType<typeof quantiseRows>, rows: number, columns: number, bits: Bits): number[] {
  const out: number[] = [];
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const block = Math.floor(column / BLOCK);
      const scale = values.scales[row * blocksOf(columns) + block]!;
      const nibble = (bytes: Uint8Array, start: number, i: number): number =>
        (bytes[start + Math.floor(i / 2)]! >> (4 * (i % 2))) & 15;
      const start = row * packedBytesPerRow(columns, bits);
      const q = bits === 8 ? values.packed[start + column]! : nibble(values.packed, start, column);
      const zero = bits === 8 ? 128 : nibble(values.zeros, row * zeroBytesPerRow(columns), block);
      out.push((q - zero) * scale);
    }
  }
  return out;
}

const wave = (n: number): Float32Array => Float32Array.from({ length: n }, (_, i) => Math.sin(i * 1.7) + 0.3);

test.each([
  [8, 64],
  [8, 80],
  [4, 64],
  [4, 96],
  [4, 40],
] as const)("%i bits over %i columns: every weight comes back within half a step", (bits, columns) => {
  const rows = 3;
  const values = wave(rows * columns);
  const back = dequantise(quantiseRows(values, columns, bits), rows, columns, bits);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const first = column - (column % BLOCK);
      const block = values.subarray(row * columns + first, row * columns + Math.min(first + BLOCK, columns));
      const step =
        bits === 8 ? Math.max(...block.map(Math.abs)) / 127 : (Math.max(0, ...block) - Math.min(0, ...block)) / 15;
      // A zero point is rounded too, which costs 4 bits another half step at the ends of the range.
      const allowed = bits === 8 ? 0.5 : 1;
      const error = Math.abs(back[row * columns + column]! - values[row * columns + column]!);
      expect(error).toBeLessThanOrEqual(step * allowed + 1e-6);
    }
  }
});

test("zeros stay zeros, in whole blocks and in the filling of the last one", () => {
  for (const bits of [8, 4] as const) {
    const { packed, scales } = quantiseRows(new Float32Array(40), 40, bits);
    expect([...scales]).toEqual([0, 0]);
    expect(new Set(packed).size).toBe(1);
  }
});
