/** Element types of safetensors files, and the conversions between 16-bit floats and float32. */
import type { Dtype } from "./checkpoint.ts";

/** Bytes per element. */
export const DTYPE_BYTES: Readonly<Record<Dtype, number>> = {
  F64: 8,
  I64: 8,
  U64: 8,
  F32: 4,
  I32: 4,
  U32: 4,
  F16: 2,
  BF16: 2,
  I16: 2,
  U16: 2,
  U8: 1,
  I8: 1,
  BOOL: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
};

export function isDtype(value: unknown): value is Dtype {
  return typeof value === "string" && Object.hasOwn(DTYPE_BYTES, value);
}

/** Types whose values become float32 without loss; weights of a model have one of them. */
export type FloatDtype = "F32" | "F16" | "BF16";

export function isFloatDtype(dtype: Dtype): dtype is FloatDtype {
  return dtype === "F32" || dtype === "F16" || dtype === "BF16";
}

const scratchFloat = new Float32Array(1);
const scratchBits = new Uint32Array(scratchFloat.buffer);

/** All 65,536 halves as float32 bits: one load per element instead of branches on exponents. Built on first use. */
let halfTable: Uint32Array | null = null;

function halfBits(): Uint32Array {
  if (halfTable !== null) return halfTable;
  const table = new Uint32Array(0x10000);
  for (let half = 0; half < 0x10000; half++) {
    const sign = (half & 0x8000) << 16;
    const exponent = (half >> 10) & 0x1f;
    const fraction = half & 0x3ff;
    if (exponent === 0) {
      // Subnormal: fraction · 2⁻²⁴ is a normal float32.
      scratchFloat[0] = fraction * 2 ** -24;
      table[half] = sign | scratchBits[0]!;
    } else if (exponent === 0x1f) {
      table[half] = sign | 0x7f800000 | (fraction << 13);
    } else {
      table[half] = sign | ((exponent + 112) << 23) | (fraction << 13);
    }
  }
  halfTable = table;
  return table;
}

/** (n) IEEE half bits → (n) float32, exactly. */
export function f16ToF32(halves: Uint16Array, out = new Float32Array(halves.length)): Float32Array {
  const table = halfBits();
  const bits = new Uint32Array(out.buffer, out.byteOffset, halves.length);
  for (let i = 0; i < halves.length; i++) bits[i] = table[halves[i]!]!;
  return out;
}

/** (n) bfloat16 bits → (n) float32, exactly. */
export function bf16ToF32(values: Uint16Array, out = new Float32Array(values.length)): Float32Array {
  const bits = new Uint32Array(out.buffer, out.byteOffset, values.length);
  for (let i = 0; i < values.length; i++) bits[i] = values[i]! << 16;
  return out;
}

/** (n) float32 → (n) bfloat16 bits, round to nearest even; NaN stays NaN. */
export function f32ToBf16(values: Float32Array, out = new Uint16Array(values.length)): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < bits.length; i++) {
    const x = bits[i]!;
    if ((x & 0x7fffffff) > 0x7f800000) {
      out[i] = (x >>> 16) | 0x40;
    } else {
      out[i] = (x + 0x7fff + ((x >>> 16) & 1)) >>> 16;
    }
  }
  return out;
}

/** (n) float32 → (n) IEEE half bits, round to nearest even; beyond 65,504 infinity. */
export function f32ToF16(values: Float32Array, out = new Uint16Array(values.length)): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < bits.length; i++) out[i] = halfOf(bits[i]!);
  return out;
}

function halfOf(x: number): number {
  const sign = (x >>> 16) & 0x8000;
  const magnitude = x & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  // 65,520 and above round to infinity.
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Below 2⁻¹⁴ halves are subnormal and count in units of 2⁻²⁴; 1024 units round into the smallest normal one.
    scratchBits[0] = magnitude;
    const units = scratchFloat[0]! * 2 ** 24;
    return sign | roundHalfEven(units);
  }
  const rebased = magnitude - 0x38000000;
  return sign | ((rebased + 0xfff + ((rebased >>> 13) & 1)) >>> 13);
}

function roundHalfEven(x: number): number {
  const down = Math.floor(x);
  const rest = x - down;
  if (rest > 0.5 || (rest === 0.5 && down % 2 === 1)) return down + 1;
  return down;
}

/** Bytes of a tensor (little endian, as in the file) → float32. A copy, whatever the alignment of `bytes`. */
export function decodeFloats(bytes: Uint8Array, dtype: FloatDtype): Float32Array {
  const size = DTYPE_BYTES[dtype];
  // Typed arrays need an aligned start.
  const aligned = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
  const count = Math.floor(bytes.byteLength / size);
  if (dtype === "F32") return new Float32Array(aligned.buffer, aligned.byteOffset, count).slice();
  const raw = new Uint16Array(aligned.buffer, aligned.byteOffset, count);
  return dtype === "F16" ? f16ToF32(raw) : bf16ToF32(raw);
}

/** float32 → bytes of a tensor of the given type. */
export function encodeFloats(values: Float32Array, dtype: FloatDtype): Uint8Array {
  if (dtype === "F32") return new Uint8Array(values.slice().buffer);
  const raw = dtype === "F16" ? f32ToF16(values) : f32ToBf16(values);
  return new Uint8Array(raw.buffer, raw.byteOffset, raw.byteLength);
}
