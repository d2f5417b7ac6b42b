/** Test-side quantisers: simple, not clever. Only their inverse is under test. */
import type { TensorTypeName } from "../../../src/model/gguf/format.ts";

/** Float values to the bytes of a GGUF tensor type. */
export function quantise(type: TensorTypeName, values: Float32Array): Uint8Array {
  switch (type) {
    case "F32":
      return new Uint8Array(values.slice().buffer);
    case "F16":
      return new Uint8Array(Uint16Array.from(values, floatToHalf).buffer);
    case "BF16":
      return new Uint8Array(Uint16Array.from(values, (value) => floatBits(value) >>> 16).buffer);
    case "Q8_0":
      return blocks(values, 34, (block, out) => {
        const scale = Math.max(...block.map(Math.abs)) / 127;
        writeHalf(out, 0, scale);
        for (const [i, value] of block.entries()) out[2 + i] = scale ? Math.round(value / scale) & 255 : 0;
      });
    case "Q4_0":
      return blocks(values, 18, (block, out) => {
        const scale = Math.max(...block.map(Math.abs)) / 7;
        writeHalf(out, 0, scale);
        const q = Array.from(block, (value) => (scale ? Math.round(value / scale) + 8 : 8));
        for (let i = 0; i < 16; i++) out[2 + i] = q[i]! | (q[16 + i]! << 4);
      });
    case "Q4_1":
      return blocks(values, 20, (block, out) => {
        const low = Math.min(...block);
        const scale = (Math.max(...block) - low) / 15;
        writeHalf(out, 0, scale);
        writeHalf(out, 2, low);
        const q = Array.from(block, (value) =>
          scale ? Math.min(15, Math.max(0, Math.round((value - low) / scale))) : 0,
        );
        for (let i = 0; i < 16; i++) out[4 + i] = q[i]! | (q[16 + i]! << 4);
      });
    default:
      throw new Error(`the test writer does not make ${type}`);
  }
}

function blocks(
  values: Float32Array,
  bytes: number,
  write: (block: Float32Array, out: Uint8Array) => void,
): Uint8Array {
  const out = new Uint8Array((values.length / 32) * bytes);
  for (let i = 0; i < values.length / 32; i++) {
    write(values.subarray(32 * i, 32 * i + 32), out.subarray(bytes * i, bytes * (i + 1)));
  }
  return out;
}

function writeHalf(out: Uint8Array, at: number, value: number): void {
  const half = floatToHalf(value);
  out[at] = half & 255;
  out[at + 1] = half >> 8;
}

function floatBits(value: number): number {
  return new Uint32Array(new Float32Array([value]).buffer)[0]!;
}

/** Nearest half-precision number, ties to even; overflow becomes infinity. */
export function floatToHalf(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  if (Number.isNaN(value)) return 0x7e00;
  if (magnitude >= 65_520) return sign | 0x7c00;
  const exponent = Math.max(-14, Math.floor(Math.log2(magnitude || 2 ** -30)));
  const scaled = (magnitude / 2 ** exponent) * 1024; // 1024…2047 for normal numbers
  const rounded = scaled % 1 === 0.5 ? 2 * Math.round(scaled / 2) : Math.round(scaled);
  // A subnormal has no implicit bit; adding makes a carry into the exponent come out right.
  return sign | (rounded >= 1024 ? (exponent + 15 - 1) * 1024 + rounded : rounded);
}
