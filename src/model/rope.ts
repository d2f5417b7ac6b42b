/**
 * Inverse frequencies of rotary position embeddings, as the functions of ROPE_INIT_FUNCTIONS in Hugging Face
 * Transformers compute them: every intermediate is rounded to float32, because a table computed in double differs in
 * the last bits and the difference grows with the position.
 */
import { fail } from "../errors.ts";
import { type FieldReader, show } from "./json.ts";

const f32 = Math.fround;

/** 1 / theta^(2i / headDim), i = 0 … headDim/2 − 1 */
function defaultFrequencies(theta: number, headDim: number): Float32Array {
  return Float32Array.from({ length: headDim / 2 }, (_, i) => f32(1 / f32(f32(theta) ** f32((2 * i) / headDim))));
}

/** Positions divided by `factor` (Chen et al. 2023, arXiv 2306.15595). */
function linearFrequencies(base: Float32Array, factor: number): Float32Array {
  return base.map((frequency) => f32(frequency / f32(factor)));
}

interface Llama3Scaling {
  factor: number;
  lowFreqFactor: number;
  highFreqFactor: number;
  originalMaxPositions: number;
}

/** Llama 3.1: long wavelengths are divided by `factor`, short ones kept, those between interpolated. */
function llama3Frequencies(base: Float32Array, scaling: Llama3Scaling): Float32Array {
  const { factor, lowFreqFactor: low, highFreqFactor: high, originalMaxPositions: original } = scaling;
  const longest = f32(original / low);
  const shortest = f32(original / high);
  return base.map((frequency) => {
    const wavelength = f32(f32(2 * Math.PI) / frequency);
    if (wavelength > longest) return f32(frequency / f32(factor));
    if (wavelength < shortest) return frequency;
    const smooth = f32(f32(f32(f32(original) / wavelength) - f32(low)) / f32(high - low));
    return f32(f32(f32(f32(1 - smooth) * frequency) / f32(factor)) + f32(smooth * frequency));
  });
}

function llama3Scaling(rope: FieldReader): Llama3Scaling {
  const scaling = {
    factor: rope.number("factor"),
    lowFreqFactor: rope.number("low_freq_factor"),
    highFreqFactor: rope.number("high_freq_factor"),
    originalMaxPositions: rope.integer("original_max_position_embeddings"),
  };
  if (scaling.highFreqFactor <= scaling.lowFreqFactor) {
    throw rope.wrong("high_freq_factor", "must be above low_freq_factor");
  }
  return scaling;
}

/**
 * (headDim / 2) inverse frequencies in float32 for `rope_parameters` or `rope_scaling` (null = neither is there).
 * Errors: `unsupported_architecture` for another rope type or a partial rotary factor, `invalid_checkpoint`.
 */
export function inverseFrequencies(rope: FieldReader | null, theta: number, headDim: number): Float32Array {
  const frequencies = scaledFrequencies(rope, theta, headDim);
  if (frequencies.every(Number.isFinite)) return frequencies;
  throw fail("invalid_checkpoint", "config.json: the RoPE parameters give frequencies beyond float32");
}

function scaledFrequencies(rope: FieldReader | null, theta: number, headDim: number): Float32Array {
  const base = defaultFrequencies(theta, headDim);
  if (rope === null) return base;
  const type = rope.string("rope_type", rope.string("type", "default"));
  const partial = rope.number("partial_rotary_factor", { fallback: 1 });
  if (partial !== 1) {
    throw fail(
      "unsupported_architecture",
      `partial rotary embeddings (partial_rotary_factor ${partial}) are not supported`,
    );
  }
  switch (type) {
    case "default":
      return base;
    case "linear":
      return linearFrequencies(base, rope.number("factor"));
    case "llama3":
      return llama3Frequencies(base, llama3Scaling(rope));
    default:
      throw fail(
        "unsupported_architecture",
        `RoPE scaling of type ${show(type)} is not supported; default, linear and llama3 are`,
      );
  }
}
