import { closeSync, openSync, readSync } from "node:fs";
import { fail } from "../../errors.ts";
import type { Architecture } from "./architecture.ts";
import { metadataFields, shortestFloat32 } from "./fields.ts";
import { dequantise } from "./quants/dequantise.ts";
import type { GgufFile } from "./reader.ts";

export interface Llama3Scaling {
  rope_type: "llama3";
  factor: number;
  low_freq_factor: number;
  high_freq_factor: number;
  original_max_position_embeddings: number;
}

export type RopeScaling = { rope_type: "linear"; factor: number } | Llama3Scaling | null;

/** Two float32 roundings lie between the converter's factors and ours. */
const FACTOR_TOLERANCE = 2e-6;

/**
 * `rope_scaling` for config.json. Linear scaling is stated in metadata; llama3's is stored only as its result, one factor
 * per frequency in the tensor `rope_freqs.weight`, from which the parameters are recovered and checked.
 */
export function readRopeScaling(file: GgufFile, path: string, architecture: Architecture): RopeScaling {
  const fields = metadataFields(file);
  const prefix = `${architecture.name}.rope.scaling`;
  const type = fields.string(`${prefix}.type`) ?? (fields.has(`${prefix}.factor`) ? "linear" : "none");
  const factor = fields.number(`${prefix}.factor`) ?? fields.number(`${architecture.name}.rope.scale_linear`) ?? 1;
  if (type !== "none" && type !== "linear") {
    throw fail(
      "unsupported_checkpoint",
      `${file.label}: RoPE scaling of type ${type.slice(0, 40)} is not supported yet`,
    );
  }
  if (factor <= 0) throw fail("invalid_checkpoint", `${file.label}: ${prefix}.factor is ${factor}`);
  const factors = readFactors(file, path, architecture);
  if (factors?.some((each) => each !== 1)) {
    if (type === "linear" && factor !== 1) {
      throw fail("unsupported_checkpoint", `${file.label}: has linear RoPE scaling and rope_freqs.weight at once`);
    }
    const base = fields.number(`${architecture.name}.rope.freq_base`) ?? 10_000;
    const scaling = recoverLlama3(factors, base, architecture);
    if (scaling) return scaling;
    throw fail("unsupported_checkpoint", `${file.label}: rope_freqs.weight is not a RoPE scaling of type llama3`);
  }
  return type === "linear" && factor !== 1 ? { rope_type: "linear", factor: shortestFloat32(factor) } : null;
}

function readFactors(file: GgufFile, path: string, architecture: Architecture): Float32Array | null {
  const tensor = file.tensors.get("rope_freqs.weight");
  if (!tensor) return null;
  if (tensor.type !== "F32" || tensor.shape.join() !== String(architecture.headDim / 2)) {
    throw fail(
      "invalid_checkpoint",
      `${file.label}: rope_freqs.weight is ${tensor.type} [${tensor.shape.join(", ")}], not F32 [${architecture.headDim / 2}]`,
    );
  }
  const bytes = new Uint8Array(tensor.bytes);
  const fd = openSync(path, "r");
  try {
    readSync(fd, bytes, 0, bytes.length, tensor.offset);
  } finally {
    closeSync(fd);
  }
  const factors = new Float32Array(architecture.headDim / 2);
  dequantise("F32", bytes, factors);
  return factors;
}

/**
 * Llama 3.1's rule for a frequency f = base^(−2i/d) with wavelength λ = 2π/f and original context L: divide f by 1 when
 * λ < L/high, by `factor` when λ > L/low, and between by 1/((1 − s)/factor + s), s = (L/λ − low)/(high − low).
 * Scaling (L, low, high) together changes nothing, so low is taken as 1 and the common choices of L and high are tried
 * first; otherwise the factors between give a line in 1/λ, hence L and high.
 */
export function recoverLlama3(
  factors: Float32Array,
  base: number,
  a: Pick<Architecture, "headDim">,
): Llama3Scaling | null {
  const factor = shortestFloat32(factors.reduce((x, y) => Math.max(x, y), 1));
  const inverse = Array.from(factors, (_, i) => base ** ((-2 * i) / a.headDim) / (2 * Math.PI)); // 1/λ
  const candidates: [high: number, length: number][] = [];
  for (const length of [8192, 4096, 2048, 16_384, 32_768, 1024, 512, 256, 128]) candidates.push([4, length]);
  const between = [...factors.keys()].filter((i) => factors[i]! > 1 && factors[i]! < factor);
  const smooth = (i: number): number => (1 / factors[i]! - 1 / factor) / (1 - 1 / factor);
  const first = between[0];
  const last = between.at(-1);
  if (first !== undefined) candidates.push([4, (1 + 3 * smooth(first)) / inverse[first]!]);
  if (first !== undefined && last !== undefined && first !== last) {
    const slope = (smooth(first) - smooth(last)) / (inverse[first]! - inverse[last]!);
    const high = 1 - 1 / (smooth(first) - slope * inverse[first]!);
    candidates.push([high, slope * (high - 1)], [shortestFloat32(Number(high.toPrecision(3))), slope * (high - 1)]);
  }
  for (const [high, exactLength] of candidates) {
    const length = Math.round(exactLength);
    if (!(high > 1) || !(length >= 1)) continue;
    const found = factors.every((each, i) => {
      const expected = llama3Factor(inverse[i]! * length, factor, high);
      return Math.abs(each - expected) <= FACTOR_TOLERANCE * expected;
    });
    if (found) {
      return {
        rope_type: "llama3",
        factor,
        low_freq_factor: 1,
        high_freq_factor: high,
        original_max_position_embeddings: length,
      };
    }
  }
  return null;
}

/** `turns` = L/λ: how often the wave fits into the original context; low = 1. */
function llama3Factor(turns: number, factor: number, high: number): number {
  if (turns > high) return 1;
  if (turns < 1) return factor;
  const s = (turns - 1) / (high - 1);
  return 1 / ((1 - s) / factor + s);
}
