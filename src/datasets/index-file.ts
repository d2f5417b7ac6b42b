/**
 * The offset index beside a dataset's lines, so that row i is found without reading the rows before it. Little endian:
 *
 *   8 bytes  "PRDSIDX1"
 *   8 bytes  number of rows (u64)
 *   per row  8 bytes offset of its line (u64) · 8 bytes sha256 of its line (beginning) · 16 bytes sha256 of its question
 *   8 bytes  offset behind the last line (u64)
 *
 * The hash of the line tells on reading that a row has changed; that of the question groups rows for splits, which thereby
 * need no text.
 */
import { createHash } from "node:crypto";

const MAGIC = Buffer.from("PRDSIDX1");
export const HEADER_BYTES = 16;
export const RECORD_BYTES = 32;
const LINE_HASH_BYTES = 8;
const QUESTION_HASH_BYTES = 16;

export const indexBytes = (rows: number): number => HEADER_BYTES + rows * RECORD_BYTES + 8;

export function indexHeader(rows: number): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  MAGIC.copy(header);
  header.writeBigUInt64LE(BigInt(rows), 8);
  return header;
}

export function isIndexHeader(bytes: Buffer, rows: number): boolean {
  return bytes.equals(indexHeader(rows));
}

export function offsetBytes(offset: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(offset));
  return bytes;
}

export interface IndexRecord {
  offset: number;
  lineHash: Buffer;
  questionHash: Buffer;
}

export function indexRecord({ offset, lineHash, questionHash }: IndexRecord): Buffer {
  return Buffer.concat([offsetBytes(offset), lineHash, questionHash]);
}

/** Record i of `bytes`, which begin with a record. */
export function recordAt(bytes: Buffer, i: number): IndexRecord {
  const at = i * RECORD_BYTES;
  return {
    offset: offsetAt(bytes, i),
    lineHash: bytes.subarray(at + 8, at + 8 + LINE_HASH_BYTES),
    questionHash: bytes.subarray(at + 8 + LINE_HASH_BYTES, at + RECORD_BYTES),
  };
}

/** The same of its offset alone; behind the last record stands the end of the lines. */
export function offsetAt(bytes: Buffer, i: number): number {
  return Number(bytes.readBigUInt64LE(i * RECORD_BYTES));
}

export function hashLine(line: Uint8Array): Buffer {
  return createHash("sha256").update(line).digest().subarray(0, LINE_HASH_BYTES);
}

export function hashQuestion(question: string): Buffer {
  return createHash("sha256").update(question, "utf8").digest().subarray(0, QUESTION_HASH_BYTES);
}
