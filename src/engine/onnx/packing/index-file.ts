import { open, readFile, stat } from "node:fs/promises";
import path from "node:path";
import type { PackedMatrix, PackedTensor, PlannedMatrix } from "../../../graph/matrices.ts";
import { externalLocation } from "../../../graph/weights.ts";

/** A directory of packed weights: the bytes that sessions map, and where which matrix lies. */
export const DATA_FILE = "weights.bin";
const INDEX_FILE = "index.json";

/** By the names of graph/matrices.ts; locations are names of files in the directory. */
export type PackedMatrices = Readonly<Record<string, PackedMatrix>>;

export interface PackedIndex {
  /** Of the data file. */
  fileBytes: number;
  /** Of them a session maps and keeps these. */
  mappedBytes: number;
  matrices: PackedMatrices;
  /** What one of the matrices makes of a fixed input, as a hash. */
  probe: { name: string; digest: string };
}

export async function writeIndex(directory: string, index: PackedIndex): Promise<void> {
  const file = await open(path.join(directory, INDEX_FILE), "wx");
  try {
    await file.writeFile(JSON.stringify(index));
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Null when the directory does not hold all of `matrices` as planned: absent, or damaged. */
export async function readIndex(directory: string, matrices: readonly PlannedMatrix[]): Promise<PackedIndex | null> {
  try {
    const index = JSON.parse(await readFile(path.join(directory, INDEX_FILE), "utf8")) as PackedIndex;
    const { size } = await stat(path.join(directory, DATA_FILE));
    const whole = matrices.every((matrix) => isWhole(index.matrices[matrix.name], matrix, size));
    return index.fileBytes === size && whole ? index : null;
  } catch {
    return null;
  }
}

function isWhole(found: PackedMatrix | undefined, matrix: PlannedMatrix, size: number): boolean {
  const { scheme } = matrix;
  if (!found || found.rows !== matrix.rows || found.columns !== matrix.columns) return false;
  if (JSON.stringify(found.scheme) !== JSON.stringify(scheme)) return false;
  const tensors = [found.weight, ...(scheme ? [found.scales] : []), ...(scheme?.zeroPoints ? [found.zeros] : [])];
  return tensors.every(
    (tensor) => tensor?.data.location === DATA_FILE && tensor.data.offset + tensor.data.bytes <= size,
  );
}

/** The same matrices at places that a session can open. */
export function located(directory: string, matrices: PackedMatrices): ReadonlyMap<string, PackedMatrix> {
  const moved = ({ data, ...rest }: PackedTensor): PackedTensor => ({
    ...rest,
    data: { ...data, location: externalLocation(path.join(directory, data.location)) },
  });
  return new Map(
    Object.entries(matrices).map(([name, { weight, scales, zeros, ...rest }]) => [
      name,
      {
        ...rest,
        weight: moved(weight),
        ...(scales ? { scales: moved(scales) } : {}),
        ...(zeros ? { zeros: moved(zeros) } : {}),
      },
    ]),
  );
}
