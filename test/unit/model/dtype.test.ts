import { readFile } from "node:fs/promises";
import path from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import type { TensorLocation } from "../../../src/model/checkpoint.ts";
import { bf16ToF32, decodeFloats, encodeFloats, f16ToF32, f32ToBf16, f32ToF16 } from "../../../src/model/dtype.ts";
import { openCheckpoint } from "../../../src/model/open.ts";
import { readTensor } from "../../../src/model/tensor-data.ts";
import { GOLDEN } from "./fixture.ts";

const ALL_HALVES = Uint16Array.from({ length: 0x10000 }, (_, i) => i);

/** Slow twin, from the definition of IEEE binary16. */
function halfValue(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

test("every half decodes to its value and encodes back to itself", () => {
  const values = f16ToF32(ALL_HALVES);
  expect(Array.from(values).every((x, i) => Object.is(x, halfValue(i)))).toBe(true);
  const back = f32ToF16(values);
  const wrong = Array.from(back).findIndex((bits, i) => bits !== i && !Number.isNaN(values[i]));
  expect(wrong).toBe(-1);
  expect(Array.from(f16ToF32(back)).every((x, i) => Number.isNaN(x) === Number.isNaN(values[i]))).toBe(true);
});

test("every bfloat16 decodes to its upper bits and encodes back to itself", () => {
  const values = bf16ToF32(ALL_HALVES);
  expect(values[0x3f80]).toBe(1);
  expect(values[0xc040]).toBe(-3);
  const back = f32ToBf16(values);
  expect(Array.from(back).findIndex((bits, i) => bits !== i && !Number.isNaN(values[i]))).toBe(-1);
  expect(bf16ToF32(f32ToBf16(Float32Array.of(Number.NaN)))[0]).toBeNaN();
});

/** The nearer of the two neighbours, the even one in a tie. */
function nearest(x: number, values: Float32Array): number {
  let best = 0;
  for (let bits = 0; bits < 0x8000; bits++) {
    const distance = Math.abs(values[bits]! - x);
    const shortest = Math.abs(values[best]! - x);
    if (distance < shortest || (distance === shortest && bits % 2 === 0)) best = bits;
  }
  return best;
}

test("rounding goes to the nearest value, ties to even", () => {
  const halves = f16ToF32(ALL_HALVES.map((bits) => Math.min(bits, 0x7c00)));
  const bf16s = bf16ToF32(ALL_HALVES.map((bits) => Math.min(bits, 0x7f80)));
  const magnitude = fc
    .tuple(fc.integer({ min: -26, max: 14 }), fc.nat(2 ** 23))
    .map(([e, m]) => Math.fround((1 + m / 2 ** 23) * 2 ** e));
  const tie = fc.nat(0x7bfe).map((bits) => (halves[bits]! + halves[bits + 1]!) / 2);
  fc.assert(
    fc.property(fc.oneof(magnitude, tie), (x) => {
      expect(f32ToF16(Float32Array.of(x))[0]).toBe(nearest(x, halves));
      expect(f32ToBf16(Float32Array.of(x))[0]).toBe(nearest(x, bf16s));
    }),
    { numRuns: 60 },
  );
  expect(f32ToF16(Float32Array.of(65519, 65520, -1e9))).toEqual(Uint16Array.of(0x7bff, 0x7c00, 0xfc00));
});

test("bytes at an odd address decode the same", () => {
  for (const dtype of ["F32", "F16", "BF16"] as const) {
    const bytes = encodeFloats(Float32Array.of(1.5, -2, 0.25), dtype);
    const shifted = new Uint8Array(bytes.length + 1);
    shifted.set(bytes, 1);
    expect(decodeFloats(shifted.subarray(1), dtype)).toEqual(Float32Array.of(1.5, -2, 0.25));
  }
});

test("readTensor agrees with a DataView on the golden files", async () => {
  for (const [name, value] of [
    ["llama", (view: DataView, at: number) => bf16ToF32(Uint16Array.of(view.getUint16(2 * at, true)))[0]],
    ["mistral", (view: DataView, at: number) => halfValue(view.getUint16(2 * at, true))],
    ["qwen2", (view: DataView, at: number) => view.getFloat32(4 * at, true)],
  ] as const) {
    const { tensors } = await openCheckpoint(path.join(GOLDEN, name));
    const location = tensors["model.layers.1.mlp.down_proj.weight"] as TensorLocation;
    const file = await readFile(location.path);
    const view = new DataView(file.buffer, file.byteOffset + location.offset, location.bytes);
    const values = await readTensor(location);
    expect(values).toHaveLength(location.shape[0]! * location.shape[1]!);
    expect(Array.from(values).every((x, i) => x === value(view, i))).toBe(true);
    expect(Math.max(...values)).toBeGreaterThan(0.1);
  }
});
