import { fail } from "../../../errors.ts";
import type { Matrix, PackedMatrix, PackedTensor, PlannedMatrix } from "../../../graph/matrices.ts";
import { blockBytes, blocksOf, quantiseRows, zeroBytesPerRow } from "../../../graph/quantise.ts";
import type { Checkpoint, TensorLocation } from "../../../model/checkpoint.ts";
import { readTensor } from "../../../model/tensor-data.ts";
import { DATA_FILE } from "./index-file.ts";
import type { RegionFile } from "./region-file.ts";

/** Matrices as a kernel takes them in, before it packs them. */
export const PLAIN_FILE = "plain.bin";

export interface PlainFiles {
  /** Weights, until they are packed. */
  plain: RegionFile;
  /** Scales and zero points, which kernels read beside what they packed. */
  data: RegionFile;
}

/** Floats read and quantised at a time. */
const CHUNK_BYTES = 8 * 2 ** 20;
const FLOAT_BYTES = Float32Array.BYTES_PER_ELEMENT;

/** Bytes of the weights of a matrix as a kernel takes them in. */
export function plainBytes({ rows, columns, scheme }: PlannedMatrix): number {
  return rows * (scheme ? blocksOf(columns, scheme) * blockBytes(scheme) : columns * FLOAT_BYTES);
}

/** Parts stacked, in float, or quantised. */
export async function writePlain(
  tensors: Checkpoint["tensors"],
  matrix: PlannedMatrix,
  { plain, data }: PlainFiles,
): Promise<PackedMatrix> {
  const { rows, columns, scheme } = matrix;
  if (!scheme) {
    const weight = region(plain, PLAIN_FILE, "float", [rows, columns]);
    for await (const { row, values } of chunksOf(tensors, matrix)) {
      await plain.write(offsetOf(weight, row, rows), bytesOf(values));
    }
    return { rows, columns, scheme, weight };
  }
  const blocks = blocksOf(columns, scheme);
  const weight = region(plain, PLAIN_FILE, "uint8", [rows, blocks, blockBytes(scheme)]);
  const scales = region(data, DATA_FILE, "float", [rows * blocks]);
  const zeros = scheme.zeroPoints ? region(data, DATA_FILE, "uint8", [rows * zeroBytesPerRow(columns, scheme)]) : null;
  for await (const { row, values } of chunksOf(tensors, matrix)) {
    const quantised = quantiseRows(values, columns, scheme);
    await plain.write(offsetOf(weight, row, rows), quantised.packed);
    await data.write(offsetOf(scales, row, rows), bytesOf(quantised.scales));
    if (zeros) await data.write(offsetOf(zeros, row, rows), quantised.zeros);
  }
  return { rows, columns, scheme, weight, scales, ...(zeros ? { zeros } : {}) };
}

function region(file: RegionFile, location: string, type: "float" | "uint8", dims: readonly number[]): PackedTensor {
  const bytes = dims.reduce((product, n) => product * n, type === "float" ? FLOAT_BYTES : 1);
  return { type, dims, data: { location, offset: file.reserve(bytes), bytes } };
}

const offsetOf = ({ data }: PackedTensor, row: number, rows: number): number => data.offset + (data.bytes / rows) * row;

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);

/** Whole rows in order, part by part. */
async function* chunksOf(
  tensors: Checkpoint["tensors"],
  { parts, columns }: Matrix,
): AsyncGenerator<{ row: number; values: Float32Array }> {
  const step = Math.max(1, Math.floor(CHUNK_BYTES / (columns * FLOAT_BYTES)));
  let row = 0;
  for (const part of parts) {
    const whole = tensors[part];
    if (!whole) throw fail("invalid_checkpoint", `the checkpoint has no tensor ${part}`);
    const rows = whole.shape[0]!;
    for (let first = 0; first < rows; first += step) {
      const count = Math.min(step, rows - first);
      yield { row, values: await readTensor(rowsAt(whole, first, count)) };
      row += count;
    }
  }
}

function rowsAt(whole: TensorLocation, first: number, count: number): TensorLocation {
  const rowBytes = whole.bytes / whole.shape[0]!;
  return { ...whole, offset: whole.offset + first * rowBytes, bytes: count * rowBytes };
}
