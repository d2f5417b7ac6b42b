/**
 * What a job has finished, row by row, so that nothing is made twice: lines of JSON in a folder of the job's own, one file per
 * lease. Only the holder of a lease writes to its file, so a worker that was cut off can spoil nothing; where two have
 * finished the same row, the earlier lease's record counts. Records are short-lived: what a job leaves for good are datasets.
 */
import { type FileHandle, mkdir, open, readdir } from "node:fs/promises";
import path from "node:path";
import { storing } from "../artifacts/storing.ts";
import { syncDirectory } from "../sync-directory.ts";

export interface JournalRecord {
  /** Which row of the job's input it is, from 0. */
  row: number;
  [field: string]: unknown;
}

export interface Journal<R extends JournalRecord> {
  has(row: number): boolean;
  /** How many rows it has. */
  readonly count: number;
  get(row: number): Promise<R | undefined>;
  /** Resolves when it is on disk; what is appended meanwhile goes with the next write. Throws `insufficient_storage`. */
  append(record: R): Promise<void>;
  close(): Promise<void>;
}

interface Place {
  file: FileHandle;
  offset: number;
  bytes: number;
}

/** `token`: of the lease under which it is written, and by nobody else; null: only to look. */
export async function openJournal<R extends JournalRecord>(folder: string, token: number | null): Promise<Journal<R>> {
  if (token !== null) await storing(mkdir(folder, { recursive: true }));
  const places = new Map<number, Place>();
  const files: FileHandle[] = [];
  const names = token === null ? await filesOf(folder).catch(() => []) : await filesOf(folder);
  for (const name of names) {
    const file = await open(path.join(folder, name), "r").catch((error: unknown) => {
      // The job has just ended, and took its journal with it.
      if (token === null && (error as NodeJS.ErrnoException).code === "ENOENT") return null;
      throw error;
    });
    if (!file) continue;
    files.push(file);
    for await (const { record, offset, bytes } of recordsOf(file)) {
      if (!places.has(record.row)) places.set(record.row, { file, offset, bytes });
    }
  }
  // Tokens grow at every claim, so nobody has begun this file.
  const own = token === null ? null : await storing(open(path.join(folder, nameOf(token)), "ax+"));
  if (own) {
    files.push(own);
    await syncDirectory(folder);
  }
  let end = 0;
  let waiting: Buffer[] = [];
  let writing: Promise<void> = Promise.resolve();
  let scheduled: Promise<void> | null = null;

  async function flush(): Promise<void> {
    scheduled = null;
    const bytes = Buffer.concat(waiting);
    waiting = [];
    await storing(own!.appendFile(bytes));
    await storing(own!.datasync());
  }

  return {
    has: (row) => places.has(row),
    get count() {
      return places.size;
    },
    async get(row) {
      const place = places.get(row);
      if (!place) return undefined;
      const bytes = Buffer.alloc(place.bytes);
      await place.file.read(bytes, 0, place.bytes, place.offset);
      return JSON.parse(bytes.toString("utf8")) as R;
    },
    async append(record) {
      if (!own) throw new Error("this journal was opened only to look");
      if (places.has(record.row)) return;
      const line = Buffer.from(`${JSON.stringify(record)}\n`);
      const place = { file: own, offset: end, bytes: line.length - 1 };
      waiting.push(line);
      end += line.length;
      scheduled ??= writing = writing.then(flush);
      await scheduled;
      places.set(record.row, place);
    },
    async close() {
      await writing.catch(() => undefined);
      for (const file of files) await file.close();
    },
  };
}

/** The records of a job as they stand, in the order in which its leases wrote them; for those who only look. */
export async function* readJournal<R extends JournalRecord>(folder: string): AsyncGenerator<R> {
  const seen = new Set<number>();
  for (const name of await filesOf(folder).catch(() => [])) {
    const file = await open(path.join(folder, name), "r");
    try {
      for await (const { record } of recordsOf(file)) {
        if (seen.has(record.row)) continue;
        seen.add(record.row);
        yield record as R;
      }
    } finally {
      await file.close();
    }
  }
}

const nameOf = (token: number): string => `${token}.jsonl`;

/** In the order of their tokens. */
async function filesOf(folder: string): Promise<string[]> {
  const names = (await readdir(folder)).filter((name) => /^\d+\.jsonl$/.test(name));
  return names.sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10));
}

/** Read at once: a system call a line would cost more than the line. */
const PIECE_BYTES = 2 ** 20;
const NEWLINE = 0x0a;

/** A last line that a kill cut off is no record. */
async function* recordsOf(file: FileHandle): AsyncGenerator<{ record: JournalRecord; offset: number; bytes: number }> {
  let rest: Buffer = Buffer.alloc(0);
  for (let read = 0; ; ) {
    const { bytesRead, buffer } = await file.read(Buffer.alloc(PIECE_BYTES), 0, PIECE_BYTES, read);
    if (bytesRead === 0) return;
    const piece = Buffer.concat([rest, buffer.subarray(0, bytesRead)]);
    const offset = read - rest.length;
    read += bytesRead;
    let begin = 0;
    for (let stop = piece.indexOf(NEWLINE); stop !== -1; stop = piece.indexOf(NEWLINE, begin)) {
      const record = parse(piece.subarray(begin, stop));
      if (record) yield { record, offset: offset + begin, bytes: stop - begin };
      begin = stop + 1;
    }
    rest = piece.subarray(begin);
  }
}

function parse(line: Buffer): JournalRecord | undefined {
  try {
    return JSON.parse(line.toString("utf8")) as JournalRecord;
  } catch {
    return undefined;
  }
}
