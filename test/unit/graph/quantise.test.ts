import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  blocksOf,
  packedBytesPerRow,
  type QuantisedRows,
  quantiseRows,
  SCHEMES,
  type Scheme,
  zeroBytesPerRow,
} from "../../../src/graph/quantise.ts";
import { dequantise as readGguf } from "../../../src/model/gguf/quants/dequantise.ts";
import { halfTable } from "../../../src/model/gguf/quants/half.ts";
import { quantise as writeGguf } from "../gguf/quantise.ts";

type Name = keyof typeof SCHEMES;
const NAMES = Object.keys(SCHEMES) as Name[];

/** The slow twin: back to floats, one weight at a time, by the formulas of the format. */
function dequantise(values: QuantisedRows, rows: number, columns: number, scheme: Scheme): Float32Array {
  const out = new Float32Array(rows * columns);
  const nibble = (bytes: Uint8Array, start: number, i: number): number =>
    (bytes[start + Math.floor(i / 2)]! >> (4 * (i % 2))) & 15;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const block = Math.floor(column / scheme.block);
      const scale = values.scales[row * blocksOf(columns, scheme) + block]!;
      const start = row * packedBytesPerRow(columns, scheme);
      const q = scheme.bits === 8 ? values.packed[start + column]! : nibble(values.packed, start, column);
      const zero = scheme.zeroPoints
        ? nibble(values.zeros, row * zeroBytesPerRow(columns, scheme), block)
        : 2 ** (scheme.bits - 1);
      out[row * columns + column] = (q - zero) * scale;
    }
  }
  return out;
}

const wave = (n: number): Float32Array => Float32Array.from({ length: n }, (_, i) => Math.sin(i * 1.7) + 0.3);

/** Width of a step, and the steps that a weight may be off: 4 bits lose another half at the ends of their range. */
function stepOf(block: Float32Array, scheme: Scheme): { step: number; allowed: number } {
  const most = Math.max(...block.map(Math.abs));
  if (scheme.bits === 8) return { step: most / 127, allowed: 0.5 };
  if (!scheme.zeroPoints) return { step: most / 8, allowed: 1 };
  return { step: (Math.max(0, ...block) - Math.min(0, ...block)) / 15, allowed: 1 };
}

describe.each(NAMES)("%s", (name) => {
  const scheme = SCHEMES[name];

  test.each([32, 40, 128, 160, 300])("every weight comes back within a step, over %i columns", (columns) => {
    const rows = 3;
    const values = wave(rows * columns);
    const back = dequantise(quantiseRows(values, columns, scheme), rows, columns, scheme);
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const first = column - (column % scheme.block);
        const end = Math.min(first + scheme.block, columns);
        const { step, allowed } = stepOf(values.subarray(row * columns + first, row * columns + end), scheme);
        const error = Math.abs(back[row * columns + column]! - values[row * columns + column]!);
        expect(error).toBeLessThanOrEqual(step * allowed + 1e-6);
      }
    }
  });

  test("zeros stay zeros, in whole blocks and in the filling of the last one", () => {
    const { packed, scales } = quantiseRows(new Float32Array(140), 140, scheme);
    expect(scales).toEqual(new Float32Array(blocksOf(140, scheme)));
    expect(new Set(packed).size).toBe(1);
  });
});

describe("weights that were GGUF blocks", () => {
  /** 0 and −0 are the same weight. */
  const plain = (values: Float32Array): Float32Array => values.map((w) => w + 0);
  /** Through the scheme of the same name and back. */
  const again = (values: Float32Array, name: "q8_0" | "q4_0"): Float32Array =>
    plain(dequantise(quantiseRows(values, 32, SCHEMES[name]), values.length / 32, 32, SCHEMES[name]));

  test.each(["Q8_0", "Q4_0"] as const)("a %s file's numbers stay the same", (type) => {
    const values = new Float32Array(64 * 32);
    readGguf(type, writeGguf(type, wave(64 * 32)), values);
    expect(again(values, type === "Q8_0" ? "q8_0" : "q4_0")).toEqual(plain(values));
  });

  const half = fc.integer({ min: 1, max: 0x7bff }).chain((bits) => fc.constantFrom(bits, bits | 0x8000));
  const levels = (min: number, max: number): fc.Arbitrary<number[]> =>
    fc.array(fc.integer({ min, max }), { minLength: 32, maxLength: 32 });

  test("q4_0: any scale and any levels, whichever of them are used", () => {
    const property = fc.property(half, levels(-8, 7), (bits, q) => {
      const values = Float32Array.from(q, (level) => level * halfTable()[bits]!);
      expect(again(values, "q4_0")).toEqual(plain(values));
    });
    fc.assert(property, { numRuns: 500 });
    for (const only of [[-8], [7], [1, -1], [3, -2, 0], [-7, 7], [5]]) {
      const values = Float32Array.from({ length: 32 }, (_, i) => only[i % only.length]! * 0.0123291015625);
      expect(again(values, "q4_0")).toEqual(plain(values));
    }
  });

  test("q8_0: any scale, the largest at level 127 as GGUF's writers leave it", () => {
    const property = fc.property(half, levels(-127, 127), fc.nat(31), (bits, q, at) => {
      const values = Float32Array.from(q.with(at, 127), (level) => level * halfTable()[bits]!);
      expect(again(values, "q8_0")).toEqual(plain(values));
    });
    fc.assert(property, { numRuns: 500 });
  });
});
