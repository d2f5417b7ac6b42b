/** A dataset as jobs and routes read it. Nothing is believed of the files: what has changed is refused, not used. */
import { createHash } from "node:crypto";
import { ArtifactMissing, type ArtifactStore } from "../artifacts/store.ts";
import { fail, type PreceptorError } from "../errors.ts";
import { HEADER_BYTES, hashLine, indexBytes, isIndexHeader, offsetAt, RECORD_BYTES, recordAt } from "./index-file.ts";
import type { DatasetRow } from "./row.ts";
import { type Split, splitByQuestion } from "./split.ts";
import { INDEX_FILE, ROWS_FILE, type Written } from "./writer.ts";

export interface Dataset {
  id: string;
  contentHash: string;
  count: number;
  /** Row i, from 0. Throws `invalid_value` outside, `invalid_dataset` where the file is not what was stored. */
  row(i: number): Promise<DatasetRow>;
  /** Rows [from, to), as they lie; read in pieces, so that any number fits in memory. */
  rows(from?: number, to?: number): AsyncIterable<DatasetRow>;
  /** The same as the bytes of their lines. */
  lines(from?: number, to?: number): AsyncIterable<Buffer>;
  /** The same for the same arguments for ever; see split.ts. */
  split(heldOutFraction: number, seed: number): Promise<Split>;
  /** Reads everything and compares the hash that names it. Throws `invalid_dataset`. */
  verify(): Promise<void>;
}

export type DatasetHead = Pick<Written, "contentHash" | "indexHash" | "rows" | "bytes"> & { id: string };

/** Folder of an artefact. */
export const folderOf = (contentHash: string): string => `datasets/${contentHash}`;

/** Read at once: long rows make it fewer, short ones would cost a system call each. */
const BATCH_ROWS = 1_024;
const BATCH_BYTES = 4 * 2 ** 20;

/** Versions of files whose index was hashed by this process, by content hash: pages need not hash it again and again. */
export type Verified = Map<string, string>;

/** Compares sizes and the hash of the index. Throws `invalid_dataset`. */
export async function openDatasetFiles(
  store: ArtifactStore,
  head: DatasetHead,
  verified: Verified = new Map(),
): Promise<Dataset> {
  const { id, contentHash, rows: count } = head;
  const rowsKey = `${folderOf(contentHash)}/${ROWS_FILE}`;
  const indexKey = `${folderOf(contentHash)}/${INDEX_FILE}`;
  const changed = (what: string): PreceptorError =>
    fail("invalid_dataset", `the stored file of ${id} ${what}; upload it again`);

  async function assertWhole(): Promise<void> {
    const [rows, index] = await Promise.all([store.stat(rowsKey), store.stat(indexKey)]);
    if (!rows || !index) throw changed("is missing");
    if (rows.bytes !== head.bytes || index.bytes !== indexBytes(count))
      throw changed("has another size than was stored");
    const version = `${rows.version} ${index.version}`;
    if (verified.get(contentHash) === version) return;
    if ((await hashOf(store.stream(indexKey))) !== head.indexHash) throw changed("has another index than was stored");
    if (!isIndexHeader(await store.read(indexKey, 0, HEADER_BYTES), count))
      throw changed("has an index of another form");
    verified.set(contentHash, version);
  }

  /** Records [from, to) and the offset behind them. */
  async function records(from: number, to: number): Promise<Buffer> {
    const begin = HEADER_BYTES + from * RECORD_BYTES;
    const bytes = await present(store.read(indexKey, begin, begin + (to - from) * RECORD_BYTES + 8));
    if (bytes.length !== (to - from) * RECORD_BYTES + 8) throw changed("has been cut");
    return bytes;
  }

  async function* lines(from = 0, to = count): AsyncGenerator<Buffer> {
    const end = Math.min(to, count);
    for (let first = from; first < end; first += BATCH_ROWS) {
      const size = Math.min(BATCH_ROWS, end - first);
      const index = await records(first, first + size);
      for (let i = 0; i < size; ) {
        let behind = i + 1;
        while (behind < size && offsetAt(index, behind + 1) - offsetAt(index, i) <= BATCH_BYTES) behind++;
        const base = offsetAt(index, i);
        const bytes = await present(store.read(rowsKey, base, offsetAt(index, behind)));
        for (; i < behind; i++) {
          const line = bytes.subarray(offsetAt(index, i) - base, offsetAt(index, i + 1) - base);
          if (!hashLine(line).equals(recordAt(index, i).lineHash)) throw changed(`has changed at row ${first + i}`);
          yield line;
        }
      }
    }
  }

  async function* rows(from = 0, to = count): AsyncGenerator<DatasetRow> {
    for await (const line of lines(from, to)) yield JSON.parse(line.toString("utf8")) as DatasetRow;
  }

  async function present<T>(read: Promise<T>): Promise<T> {
    try {
      return await read;
    } catch (error) {
      throw error instanceof ArtifactMissing ? changed("is missing") : error;
    }
  }

  await present(assertWhole());
  return {
    id,
    contentHash,
    count,
    rows,
    lines,

    async row(i) {
      if (!Number.isInteger(i) || i < 0 || i >= count) {
        throw fail("invalid_value", `there is no row ${i}: ${id} has rows 0 to ${count - 1}`);
      }
      for await (const row of rows(i, i + 1)) return row;
      throw changed("has been cut");
    },

    async split(heldOutFraction, seed) {
      if (!(heldOutFraction >= 0 && heldOutFraction <= 1)) {
        throw fail("invalid_value", `a fraction of ${heldOutFraction} cannot be held out; take 0 to 1`);
      }
      const hashes: Buffer[] = [];
      for (let first = 0; first < count; first += BATCH_ROWS) {
        const size = Math.min(BATCH_ROWS, count - first);
        const index = await records(first, first + size);
        for (let i = 0; i < size; i++) hashes.push(recordAt(index, i).questionHash);
      }
      return splitByQuestion(hashes, heldOutFraction, seed);
    },

    async verify() {
      if ((await present(hashOf(store.stream(rowsKey)))) !== contentHash) throw changed("has changed");
    },
  };
}

async function hashOf(bytes: AsyncIterable<Buffer>): Promise<string> {
  const hash = createHash("sha256");
  for await (const piece of bytes) hash.update(piece);
  return hash.digest("hex");
}
