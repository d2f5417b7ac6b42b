import { rm } from "node:fs/promises";
import path from "node:path";
import { fail } from "../../../errors.ts";
import type { PackedMatrix, PackedTensor, PlannedMatrix } from "../../../graph/matrices.ts";
import type { Checkpoint } from "../../../model/checkpoint.ts";
import type { ComputeGuard } from "../exit-guard.ts";
import { DATA_FILE, type PackedIndex, type PackedMatrices } from "./index-file.ts";
import { piecesOf, smallest } from "./pieces.ts";
import { PLAIN_FILE, writePlain } from "./plain.ts";
import { digests, type PackedForm, type Products, withPackedForms } from "./products.ts";
import { createRegionFile, type RegionFile } from "./region-file.ts";
import { createStandIns, type StandIns } from "./stand-ins.ts";

export interface PackJob {
  tensors: Checkpoint["tensors"];
  matrices: readonly PlannedMatrix[];
  /** Where the data file is written; nothing else is left there. */
  directory: string;
  guard?: ComputeGuard | undefined;
}

/**
 * Lets ONNX Runtime's kernels pack the matrices as they do whenever a session loads, and keeps the result in a file. A
 * session that finds it there maps it, and its own is dropped before the next matrix is packed.
 */
export async function pack(job: PackJob): Promise<PackedIndex> {
  const data = await createRegionFile(path.join(job.directory, DATA_FILE));
  try {
    const standIns = await createStandIns(job.matrices, data);
    const matrices: Record<string, PackedMatrix> = {};
    const hashes = new Map<string, string>();
    let mappedBytes = 0;
    for (const piece of piecesOf(job.matrices)) {
      const packed = await packPiece(job, piece, standIns, data);
      Object.assign(matrices, packed.matrices);
      mappedBytes += packed.bytes;
      for (const [name, hash] of packed.digests) hashes.set(name, hash);
    }
    const fileBytes = await data.extend();
    await data.sync();
    const { name } = smallest(job.matrices);
    return { fileBytes, mappedBytes, matrices, probe: { name, digest: hashes.get(name)! } };
  } finally {
    await data.close();
  }
}

interface PackedPiece {
  matrices: PackedMatrices;
  bytes: number;
  digests: ReadonlyMap<string, string>;
}

async function packPiece(
  job: PackJob,
  piece: readonly PlannedMatrix[],
  standIns: StandIns,
  data: RegionFile,
): Promise<PackedPiece> {
  const io: Products = { directory: job.directory, guard: job.guard };
  const plain = await writePlainFile(job, piece, data);
  const standIn = ({ weight, ...rest }: PackedMatrix, name: string): PackedMatrix => ({
    ...rest,
    weight: standIns.of(name, weight),
  });
  const keys = new Map<string, string>();
  await withPackedForms(io, piece, mapMatrices(plain, standIn), async (forms) => {
    for (const [name, { key }] of forms) keys.set(name, key);
  });
  const matrices: Record<string, PackedMatrix> = {};
  let bytes = 0;
  await withPackedForms(io, piece, plain, async (forms, file) => {
    for (const [name, matrix] of Object.entries(plain)) {
      const [form, key] = [forms.get(name), keys.get(name)];
      const kept =
        form && key !== undefined
          ? await keepPacked(standIn(matrix, name).weight, { ...form, key }, file, data)
          : await keepPlain(matrix.weight, path.join(job.directory, PLAIN_FILE), data);
      matrices[name] = { ...matrix, weight: kept.weight };
      bytes += kept.bytes + (matrix.scales?.data.bytes ?? 0) + (matrix.zeros?.data.bytes ?? 0);
    }
  });
  await data.extend();
  const expected = digests(io, piece, plain);
  for (const [name, hash] of digests(io, piece, matrices)) {
    if (hash !== expected.get(name)) throw differs(name);
  }
  await rm(path.join(job.directory, PLAIN_FILE));
  return { matrices, bytes, digests: expected };
}

async function writePlainFile(
  { directory, tensors }: PackJob,
  piece: readonly PlannedMatrix[],
  data: RegionFile,
): Promise<PackedMatrices> {
  const plain = await createRegionFile(path.join(directory, PLAIN_FILE));
  try {
    const matrices: Record<string, PackedMatrix> = {};
    for (const matrix of piece) matrices[matrix.name] = await writePlain(tensors, matrix, { plain, data });
    await Promise.all([plain.extend(), data.extend()]);
    return matrices;
  } finally {
    await plain.close();
  }
}

function mapMatrices(
  matrices: PackedMatrices,
  change: (matrix: PackedMatrix, name: string) => PackedMatrix,
): PackedMatrices {
  return Object.fromEntries(Object.entries(matrices).map(([name, matrix]) => [name, change(matrix, name)]));
}

interface Kept {
  weight: PackedTensor;
  bytes: number;
}

async function keepPacked(standIn: PackedTensor, form: PackedForm, file: string, data: RegionFile): Promise<Kept> {
  const entries = [form.key];
  for (const blob of form.blobs) {
    const offset = data.reserve(blob.bytes);
    await data.copy(file, blob.offset, blob.bytes, offset);
    // A checksum that ONNX Runtime neither fills in nor reads.
    entries.push(`${offset};${blob.bytes};0`);
  }
  const bytes = form.blobs.reduce((sum, blob) => sum + blob.bytes, 0);
  return { weight: { ...standIn, data: { ...standIn.data, prepacked: entries.join("|") } }, bytes };
}

/** Where no kernel packs, and for a copy of another matrix, whose packed form is written only once. */
async function keepPlain(weight: PackedTensor, file: string, data: RegionFile): Promise<Kept> {
  const { bytes, offset } = weight.data;
  const to = data.reserve(bytes);
  await data.copy(file, offset, bytes, to);
  return { weight: { ...weight, data: { location: DATA_FILE, offset: to, bytes } }, bytes };
}

const differs = (name: string): Error =>
  fail("engine_failed", `packed weights of ${name} give other results than the weights themselves on this machine`);
