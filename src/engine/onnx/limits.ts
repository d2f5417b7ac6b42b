import { totalmem } from "node:os";

/** Bounds of one loaded model's worker, each with its reason. */

/**
 * Tokens per prefill or scoring chunk. Boundaries are fixed by absolute position, so a result never depends on what else
 * runs. Matrix products reach full speed at 64 rows (engine.md 2.4), and a chunk of a 0.5 B model stays under half a
 * second on two cores, which bounds how long a decode step or an abort waits.
 */
export const CHUNK_TOKENS = 64;

/** Sequences decoded together. Throughput is nearly flat from 32 rows on; 64 lets a whole group of the paper run at once. */
export const MAX_SLOTS = 64;

/** Memory for keys and values of decoded sequences: a quarter of the machine, and no more than 8 GiB per model. */
export const CACHE_BYTES = Math.min(8 * 2 ** 30, totalmem() / 4);

/** Sequences scored side by side: with two, a short one does not wait for the end of a long one. */
export const MAX_SCORING = 2;

/** One vocabulary-wide matrix; the head holds about five of them at a time. */
const HEAD_BYTES = 32 * 2 ** 20;
/** More rows make the head no faster. */
const HEAD_ROWS = 64;

/** Rows that go through the head together. */
export function headRows(vocabSize: number): number {
  return Math.max(1, Math.min(HEAD_ROWS, Math.floor(HEAD_BYTES / (vocabSize * Float32Array.BYTES_PER_ELEMENT))));
}
