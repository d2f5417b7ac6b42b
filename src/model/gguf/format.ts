/**
 * Constants of the GGUF container, versions 2 and 3, from its specification (ggml/docs/gguf.md). All numbers are
 * little-endian. A file is: magic, version, tensor count, metadata count, metadata, tensor infos, padding, tensor data.
 */

export const MAGIC = 0x46554747; // "GGUF"
export const DEFAULT_ALIGNMENT = 32;

/** Type tags of metadata values. */
export const VALUE = {
  uint8: 0,
  int8: 1,
  uint16: 2,
  int16: 3,
  uint32: 4,
  int32: 5,
  float32: 6,
  bool: 7,
  string: 8,
  array: 9,
  uint64: 10,
  int64: 11,
  float64: 12,
} as const;

/** Bytes of a metadata value of fixed size; strings and arrays are not in it. */
export const VALUE_BYTES: Readonly<Record<number, number>> = {
  0: 1,
  1: 1,
  2: 2,
  3: 2,
  4: 4,
  5: 4,
  6: 4,
  7: 1,
  10: 8,
  11: 8,
  12: 8,
};

/** Metadata and tensor infos of the largest vocabularies (262 k tokens, 514 k merges) take about 20 MB. */
export const MAX_HEADER_BYTES = 64 * 1024 * 1024;
/** The longest string in practice is a chat template (tens of kB). */
export const MAX_STRING_BYTES = 16 * 1024 * 1024;
/** Entries of an array: an order above the 514 k merges of gemma3, and a bound on the memory a lying count can take. */
export const MAX_ARRAY_LENGTH = 4 * 1024 * 1024;
/** Files in practice have some 40 metadata keys and, with hundreds of layers, some thousand tensors. */
export const MAX_KEYS = 65_536;
export const MAX_TENSORS = 65_536;
/** ggml stops at 4 dimensions. */
export const MAX_DIMENSIONS = 4;

/** A ggml tensor type: `block` values are stored in `bytes` bytes. */
export interface TensorType {
  name: string;
  block: number;
  bytes: number;
}

/** Types that are read, by their tag. */
export const TENSOR_TYPES = {
  0: { name: "F32", block: 1, bytes: 4 },
  1: { name: "F16", block: 1, bytes: 2 },
  2: { name: "Q4_0", block: 32, bytes: 18 },
  3: { name: "Q4_1", block: 32, bytes: 20 },
  6: { name: "Q5_0", block: 32, bytes: 22 },
  7: { name: "Q5_1", block: 32, bytes: 24 },
  8: { name: "Q8_0", block: 32, bytes: 34 },
  10: { name: "Q2_K", block: 256, bytes: 84 },
  11: { name: "Q3_K", block: 256, bytes: 110 },
  12: { name: "Q4_K", block: 256, bytes: 144 },
  13: { name: "Q5_K", block: 256, bytes: 176 },
  14: { name: "Q6_K", block: 256, bytes: 210 },
  30: { name: "BF16", block: 1, bytes: 2 },
} as const satisfies Record<number, TensorType>;

export type TensorTypeName = (typeof TENSOR_TYPES)[keyof typeof TENSOR_TYPES]["name"];

export function tensorType(name: TensorTypeName): TensorType {
  return Object.values(TENSOR_TYPES).find((type) => type.name === name) as TensorType;
}

/** Types that exist but are not read, so that the refusal can name them. */
export const OTHER_TENSOR_TYPES: Readonly<Record<number, string>> = {
  9: "Q8_1",
  15: "Q8_K",
  16: "IQ2_XXS",
  17: "IQ2_XS",
  18: "IQ3_XXS",
  19: "IQ1_S",
  20: "IQ4_NL",
  21: "IQ3_S",
  22: "IQ2_S",
  23: "IQ4_XS",
  24: "I8",
  25: "I16",
  26: "I32",
  27: "I64",
  28: "F64",
  29: "IQ1_M",
  34: "TQ1_0",
  35: "TQ2_0",
  39: "MXFP4",
};
