/** A GGUF of a llama checkpoint, written tensor by tensor, for llama.cpp to be measured on the same weights. */
import { open } from "node:fs/promises";
import path from "node:path";
import type { Checkpoint, TensorLocation } from "../../../src/model/checkpoint.ts";
import { openCheckpoint } from "../../../src/model/open.ts";
import { readTensor } from "../../../src/model/tensor-data.ts";
import { permute } from "../../unit/gguf/from-checkpoint.ts";
import { encodeGguf, f32, type GgufTensorSpec, type GgufValue, text, u32 } from "../../unit/gguf/write-gguf.ts";
import { madeUpVocabulary } from "./made-up-vocabulary.ts";
import { BLOCK, type MatrixType, quantiseBlocks } from "./quantise-blocks.ts";

interface Planned {
  name: string;
  type: MatrixType;
  location: TensorLocation;
  /** Heads whose rows are interleaved: q and k; 0 elsewhere. */
  heads: number;
}

/** Tensor data begin at multiples of this. */
const ALIGNMENT = 32;
const BLOCK_BYTES: Readonly<Record<MatrixType, number>> = { F32: 128, Q8_0: 34, Q4_0: 18 };
/** llama.cpp's `general.file_type`: 0 = F32, 2 = mostly Q4_0, 7 = mostly Q8_0. */
const FILE_TYPES: Readonly<Record<MatrixType, number>> = { F32: 0, Q4_0: 2, Q8_0: 7 };

const NAMES: readonly (readonly [RegExp, string])[] = [
  [/^model\.embed_tokens\./, "token_embd."],
  [/^model\.norm\./, "output_norm."],
  [/^lm_head\./, "output."],
  [/^model\.layers\.(\d+)\./, "blk.$1."],
  [/self_attn\.o_proj/, "attn_output"],
  [/self_attn\.([qkv])_proj/, "attn_$1"],
  [/mlp\.(gate|up|down)_proj/, "ffn_$1"],
  [/input_layernorm/, "attn_norm"],
  [/post_attention_layernorm/, "ffn_norm"],
];

/** A path to a GGUF of `model`: itself when it is one already, else a new file in `scratch`. Matrices get `type`. */
export async function peerGguf(model: string, type: MatrixType, scratch: string): Promise<string> {
  if (model.endsWith(".gguf")) return model;
  const file = path.join(scratch, `peer-${type.toLowerCase()}.gguf`);
  await writeGguf(await openCheckpoint(model), type, file);
  return file;
}

/** Throws for a family other than llama, or with biases: no more is needed to compare speeds. */
export async function writeGguf(checkpoint: Checkpoint, type: MatrixType, file: string): Promise<void> {
  const { config } = checkpoint;
  if (config.family !== "llama" || config.qkvBias || config.oBias || config.mlpBias) {
    throw new Error(`a GGUF for the comparison is written of plain llama checkpoints only, not of ${config.family}`);
  }
  const planned = Object.entries(checkpoint.tensors).map(([name, location]): Planned => {
    const heads = name.includes("q_proj") ? config.heads : name.includes("k_proj") ? config.kvHeads : 0;
    return { name: rename(name), type: location.shape.length === 1 ? "F32" : type, location, heads };
  });
  const out = await open(file, "w");
  try {
    await out.writeFile(header(checkpoint, type, planned));
    for (const tensor of planned) await out.writeFile(await tensorBytes(tensor));
  } finally {
    await out.close();
  }
}

function header(checkpoint: Checkpoint, type: MatrixType, planned: readonly Planned[]): Uint8Array {
  let offset = 0;
  // Without data and with the offsets said, the writer writes what stands before the data, padding included.
  const tensors = planned.map((tensor): GgufTensorSpec => {
    const spec = { name: tensor.name, type: tensor.type, shape: tensor.location.shape, data: new Uint8Array(0) };
    const at = BigInt(offset);
    offset += padded(sizeOf(tensor));
    return { ...spec, offset: at };
  });
  return encodeGguf({ metadata: { ...modelMetadata(checkpoint, type) }, tensors });
}

async function tensorBytes(tensor: Planned): Promise<Uint8Array> {
  let values = await readTensor(tensor.location);
  if (tensor.heads > 0) values = permute(values, tensor.location.shape[0]!, tensor.heads);
  const bytes = quantiseBlocks(tensor.type, values);
  if (bytes.length % ALIGNMENT === 0) return bytes;
  const out = new Uint8Array(padded(bytes.length));
  out.set(bytes);
  return out;
}

function modelMetadata({ config }: Checkpoint, type: MatrixType): Record<string, GgufValue> {
  // Frequencies are base^(−2i/d): the second one gives the base back. Scaling, if any, is left out; speed is the same.
  const frequencies = config.ropes[0]!.inverseFrequencies;
  const base = frequencies[1]! ** -frequencies.length;
  return {
    "general.architecture": text("llama"),
    "general.name": text("benchmark"),
    "general.file_type": u32(FILE_TYPES[type]),
    "general.quantization_version": u32(2),
    "llama.vocab_size": u32(config.vocabSize),
    "llama.block_count": u32(config.layers),
    "llama.context_length": u32(config.maxPositions),
    "llama.embedding_length": u32(config.hiddenSize),
    "llama.feed_forward_length": u32(config.intermediateSize),
    "llama.attention.head_count": u32(config.heads),
    "llama.attention.head_count_kv": u32(config.kvHeads),
    "llama.attention.key_length": u32(config.headDim),
    "llama.attention.value_length": u32(config.headDim),
    "llama.attention.layer_norm_rms_epsilon": f32(config.rmsNormEps),
    "llama.rope.dimension_count": u32(config.headDim),
    "llama.rope.freq_base": f32(base),
    ...madeUpVocabulary(config.vocabSize),
  };
}

const rename = (name: string): string => NAMES.reduce((renamed, [from, to]) => renamed.replace(from, to), name);

function sizeOf({ type, location }: Planned): number {
  const values = location.shape.reduce((a, b) => a * b, 1);
  return (values / BLOCK) * BLOCK_BYTES[type];
}

const padded = (length: number): number => Math.ceil(length / ALIGNMENT) * ALIGNMENT;
