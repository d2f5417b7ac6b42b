import { createHash } from "node:crypto";
import { mkdir, stat } from "node:fs/promises";
import path from "node:path";
import { fail, PreceptorError } from "../../errors.ts";
import { type Bits, blocksOf, packedBytesPerRow, quantiseRows, zeroBytesPerRow } from "../../graph/quantise.ts";
import { isMatrix, type QuantisedMatrix, type QuantisedWeights } from "../../graph/weights.ts";
import type { Checkpoint, TensorLocation } from "../../model/checkpoint.ts";
import { readSafetensorsHeader } from "../../model/safetensors.ts";
import { type TensorToWrite, writeSafetensors } from "../../model/safetensors-write.ts";
import { readTensor } from "../../model/tensor-data.ts";
import type { Precision } from "../engine.ts";

/** Changes whenever the same weights would be packed differently. */
const FORMAT = 1;
/** Weights that are quantised at a time; a vocabulary-wide matrix in float would not fit beside the model. */
const CHUNK_BYTES = 8 * 2 ** 20;

const BITS: Readonly<Record<Precision, Bits | null>> = { fp32: null, q8: 8, q4: 4 };

/**
 * Quantised matrices of a checkpoint, mapped from a file in the cache directory that is written on first use.
 * Empty for fp32. Throws `engine_failed` when the cache cannot be written.
 */
export async function quantisedWeights(
  checkpoint: Checkpoint,
  precision: Precision,
  cacheDir: string,
): Promise<QuantisedWeights> {
  const bits = BITS[precision];
  if (bits === null) return new Map();
  const file = path.join(path.resolve(cacheDir), "quantised", `${await keyOf(checkpoint, bits)}.safetensors`);
  const known = await readCache(file, checkpoint, bits);
  if (known) return known;
  try {
    await mkdir(path.dirname(file), { recursive: true });
    await writeSafetensors(
      file,
      matricesOf(checkpoint).flatMap((name) => packedTensors(checkpoint, name, bits)),
    );
  } catch (cause) {
    if (cause instanceof PreceptorError) throw cause;
    throw fail(
      "engine_failed",
      "the quantised weights could not be written to the cache; check its disk space and rights",
      {
        cause,
      },
    );
  }
  const written = await readCache(file, checkpoint, bits);
  if (!written)
    throw fail("engine_failed", "the quantised weights were damaged while they were written; check the disk");
  return written;
}

const matricesOf = (checkpoint: Checkpoint): string[] =>
  Object.keys(checkpoint.tensors).filter((name) => isMatrix(checkpoint, name));

/** The weights' own hash covers samples of the files; size and time of each file make a rewritten one a new entry. */
async function keyOf({ weightsHash, tensors }: Checkpoint, bits: Bits): Promise<string> {
  const hash = createHash("sha256").update(`${FORMAT} ${bits} ${weightsHash}`);
  for (const file of [...new Set(Object.values(tensors).map((tensor) => tensor.path))].sort()) {
    const { size, mtimeMs } = await stat(file);
    hash.update(` ${size} ${mtimeMs}`);
  }
  return `${hash.digest("hex").slice(0, 32)}-q${bits}`;
}

/** Null when there is no such file or it is not what would be written now. */
async function readCache(file: string, checkpoint: Checkpoint, bits: Bits): Promise<QuantisedWeights | null> {
  const header = await readSafetensorsHeader(file).catch(() => null);
  if (!header) return null;
  const weights = new Map<string, QuantisedMatrix>();
  for (const name of matricesOf(checkpoint)) {
    const [packed, scales, zeros] = ["packed", "scales", "zeros"].map((part) => header.tensors.get(`${name}.${part}`));
    if (!packed || !scales || (bits === 4 && !zeros)) return null;
    weights.set(name, { bits, shape: shapeOf(checkpoint, name), packed, scales, zeros: zeros ?? null });
  }
  return weights;
}

function shapeOf({ tensors }: Checkpoint, name: string): [number, number] {
  const [rows, columns] = tensors[name]!.shape as [number, number];
  return [rows, columns];
}

/** Scales and numbers are computed in a pass each: a file is written in order, and packing is cheaper than keeping. */
function packedTensors(checkpoint: Checkpoint, name: string, bits: Bits): TensorToWrite[] {
  const [rows, columns] = shapeOf(checkpoint, name);
  const blocks = blocksOf(columns);
  const tensor = checkpoint.tensors[name]!;
  const pass = (pick: (part: ReturnType<typeof quantiseRows>) => Uint8Array) =>
    async function* () {
      for await (const values of rowChunks(tensor, rows)) yield pick(quantiseRows(values, columns, bits));
    };
  const bytesOf = ({ scales }: { scales: Float32Array }): Uint8Array => new Uint8Array(scales.buffer);
  const packedShape = [rows, blocks, packedBytesPerRow(columns, bits) / blocks];
  const out: TensorToWrite[] = [
    { name: `${name}.scales`, dtype: "F32", shape: [rows * blocks], data: pass(bytesOf) },
    { name: `${name}.packed`, dtype: "U8", shape: packedShape, data: pass(({ packed }) => packed) },
  ];
  if (bits === 4) {
    const shape = [rows * zeroBytesPerRow(columns)];
    out.push({ name: `${name}.zeros`, dtype: "U8", shape, data: pass(({ zeros }) => zeros) });
  }
  return out;
}

async function* rowChunks(tensor: TensorLocation, rows: number): AsyncGenerator<Float32Array> {
  const rowBytes = tensor.bytes / rows;
  const step = Math.max(1, Math.floor(CHUNK_BYTES / rowBytes));
  for (let row = 0; row < rows; row += step) {
    const count = Math.min(step, rows - row);
    yield await readTensor({ ...tensor, offset: tensor.offset + row * rowBytes, bytes: count * rowBytes });
  }
}
