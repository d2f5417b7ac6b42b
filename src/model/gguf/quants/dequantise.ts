import { endianness } from "node:os";
import { fail } from "../../../errors.ts";
import type { TensorTypeName } from "../format.ts";
import { halfTable } from "./half.ts";
import { dequantiseQ2K } from "./q2-k.ts";
import { dequantiseQ3K } from "./q3-k.ts";
import { dequantiseQ40 } from "./q4-0.ts";
import { dequantiseQ41 } from "./q4-1.ts";
import { dequantiseQ4K } from "./q4-k.ts";
import { dequantiseQ50 } from "./q5-0.ts";
import { dequantiseQ51 } from "./q5-1.ts";
import { dequantiseQ5K } from "./q5-k.ts";
import { dequantiseQ6K } from "./q6-k.ts";
import { dequantiseQ80 } from "./q8-0.ts";

type Dequantise = (src: Uint8Array, out: Float32Array) => void;

const BY_TYPE: Readonly<Record<TensorTypeName, Dequantise>> = {
  F32: copyF32,
  F16: widenF16,
  BF16: widenBf16,
  Q4_0: dequantiseQ40,
  Q4_1: dequantiseQ41,
  Q5_0: dequantiseQ50,
  Q5_1: dequantiseQ51,
  Q8_0: dequantiseQ80,
  Q2_K: dequantiseQ2K,
  Q3_K: dequantiseQ3K,
  Q4_K: dequantiseQ4K,
  Q5_K: dequantiseQ5K,
  Q6_K: dequantiseQ6K,
};

/**
 * Whole blocks of a tensor type to floats: `src` holds out.length / block × bytes. Products of a half scale and small
 * integers are exact in doubles, so storing rounds once, as the reference's float arithmetic does.
 */
export function dequantise(type: TensorTypeName, src: Uint8Array, out: Float32Array): void {
  if (endianness() !== "LE") throw fail("unsupported_checkpoint", "GGUF files are read on little-endian machines only");
  BY_TYPE[type](src, out);
}

function copyF32(src: Uint8Array, out: Float32Array): void {
  new Uint8Array(out.buffer, out.byteOffset, out.byteLength).set(src.subarray(0, out.byteLength));
}

function widenF16(src: Uint8Array, out: Float32Array): void {
  const half = halfTable();
  for (let i = 0; i < out.length; i++) out[i] = half[src[2 * i]! | (src[2 * i + 1]! << 8)]!;
}

function widenBf16(src: Uint8Array, out: Float32Array): void {
  const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
  for (let i = 0; i < bits.length; i++) bits[i] = (src[2 * i]! << 16) | (src[2 * i + 1]! << 24);
}
