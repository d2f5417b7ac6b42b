import type { Matrix, PlannedMatrix } from "../../../graph/matrices.ts";
import { blocksOf } from "../../../graph/quantise.ts";
import { plainBytes } from "./plain.ts";

/**
 * Weights in float that are packed at a time: about so much memory, and thrice as much disk, is needed meanwhile. The
 * allocator keeps what small blocks took; pieces of 256 MB leave the process 300 MB larger, and are no faster.
 */
const PIECE_BYTES = 64 * 2 ** 20;

const floatBytes = ({ rows, columns }: Matrix): number => rows * columns * Float32Array.BYTES_PER_ELEMENT;

export const smallest = <M extends Matrix>(matrices: readonly M[]): M =>
  matrices.reduce((least, matrix) => (floatBytes(matrix) < floatBytes(least) ? matrix : least));

export function piecesOf<M extends Matrix>(matrices: readonly M[]): M[][] {
  const pieces: M[][] = [];
  let room = 0;
  for (const matrix of matrices) {
    const bytes = floatBytes(matrix);
    if (bytes > room) {
      pieces.push([]);
      room = Math.max(PIECE_BYTES, bytes);
    }
    pieces.at(-1)!.push(matrix);
    room -= bytes;
  }
  return pieces;
}

/** Of the disk while packing: all of the data file, and of the largest piece its matrices and what the runtime writes. */
export function diskBytes(matrices: readonly PlannedMatrix[]): number {
  const plain = (some: readonly PlannedMatrix[]): number => some.reduce((sum, matrix) => sum + plainBytes(matrix), 0);
  // A scale per block lies beside the packed weights, and again among them with a sum per block; zero points take less.
  const perBlock = 4 * Float32Array.BYTES_PER_ELEMENT;
  const blocks = ({ rows, columns, scheme }: PlannedMatrix): number => (scheme ? rows * blocksOf(columns, scheme) : 0);
  const largest = Math.max(...piecesOf(matrices).map(plain));
  return plain(matrices) + perBlock * matrices.reduce((sum, matrix) => sum + blocks(matrix), 0) + 3 * largest;
}
