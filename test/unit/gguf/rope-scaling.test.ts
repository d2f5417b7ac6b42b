import { expect, test } from "vitest";
import { recoverLlama3 } from "../../../src/model/gguf/rope-scaling.ts";

/** The rule of Llama 3.1 as its converter writes it, in float32. */
function factorsOf(base: number, headDim: number, factor: number, low: number, high: number, length: number) {
  return Float32Array.from({ length: headDim / 2 }, (_, i) => {
    const wavelength = 2 * Math.PI * base ** ((2 * i) / headDim);
    if (wavelength < length / high) return 1;
    if (wavelength > length / low) return factor;
    const smooth = (length / wavelength - low) / (high - low);
    return 1 / ((1 - smooth) / factor + smooth);
  });
}

test.each([
  ["Llama 3.1 8B", 500_000, 128, 8, 4, 8192],
  ["Llama 3.2 1B", 500_000, 64, 32, 4, 8192],
  ["a small head", 10_000, 16, 8, 4, 128],
  ["another slope", 500_000, 128, 8, 3, 8192],
  ["another context", 500_000, 128, 16, 4, 3000],
])("the parameters of %s are recovered from its factors", (_, base, headDim, factor, high, length) => {
  const factors = factorsOf(base, headDim, factor, 1, high, length);
  expect(recoverLlama3(factors, base, { headDim })).toEqual({
    rope_type: "llama3",
    factor,
    low_freq_factor: 1,
    high_freq_factor: expect.closeTo(high, 4),
    original_max_position_embeddings: length,
  });
});

test("parameters scaled together say the same", () => {
  const factors = factorsOf(500_000, 128, 8, 2, 8, 16_384);
  expect(recoverLlama3(factors, 500_000, { headDim: 128 })).toMatchObject({
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
  });
});

test("factors of another kind are not taken for it", () => {
  const factors = Float32Array.from({ length: 64 }, (_, i) => 1 + i / 10);
  expect(recoverLlama3(factors, 10_000, { headDim: 128 })).toBeNull();
});
