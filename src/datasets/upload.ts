/** A file as it was sent → candidates of rows; what cannot be read is refused by name, with what to do instead. */
import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { fail } from "../errors.ts";
import { readCsv } from "./csv.ts";
import { gunzip } from "./gunzip.ts";
import { readJsonl } from "./jsonl.ts";
import { readParquet } from "./parquet/read.ts";
import type { RawRow } from "./row.ts";

export const FILE_FORMATS = ["jsonl", "csv", "parquet"] as const;
export type FileFormat = (typeof FILE_FORMATS)[number];

const BY_EXTENSION: Readonly<Record<string, FileFormat>> = {
  jsonl: "jsonl",
  ndjson: "jsonl",
  json: "jsonl",
  csv: "csv",
  parquet: "parquet",
};
const BY_TYPE: Readonly<Record<string, FileFormat>> = {
  "application/jsonl": "jsonl",
  "application/x-jsonlines": "jsonl",
  "application/x-ndjson": "jsonl",
  "application/json": "jsonl",
  "text/csv": "csv",
  "application/vnd.apache.parquet": "parquet",
};

const PARQUET = Buffer.from("PAR1");
const GZIP = Buffer.from([0x1f, 0x8b]);
/** First bytes of files that people send and that are not read. */
const REFUSED: readonly (readonly [magic: Buffer, what: string])[] = [
  [Buffer.from([0x28, 0xb5, 0x2f, 0xfd]), "is compressed with zstd; send it unpacked or as gzip"],
  [Buffer.from("PK\x03\x04"), "is a ZIP or Excel file; save the table as CSV (UTF-8)"],
  [Buffer.from([0xff, 0xfe]), "is UTF-16; save it as UTF-8"],
  [Buffer.from([0xfe, 0xff]), "is UTF-16; save it as UTF-8"],
];

export interface FileHints {
  format?: FileFormat | undefined;
  filename: string | undefined;
  contentType: string | undefined;
}

export interface ReadFileOptions {
  signal?: AbortSignal | undefined;
  /** What it may unpack to. */
  maxBytes: number;
}

export interface ReadableFile {
  format: FileFormat;
  compression?: "gzip";
  /** What the number of a candidate counts. */
  unit: "line" | "row";
  rows: AsyncIterable<RawRow>;
}

/** Throws `invalid_dataset` where it is none of the formats. */
export async function readFileRows(path: string, hints: FileHints, options: ReadFileOptions): Promise<ReadableFile> {
  const start = await firstBytes(path);
  const is = (magic: Buffer): boolean => start.subarray(0, magic.length).equals(magic);
  const refused = REFUSED.find(([magic]) => is(magic));
  if (refused) throw fail("invalid_dataset", `the file ${refused[1]}`, { param: "file" });
  const packed = is(GZIP);
  const format = is(PARQUET) ? "parquet" : (hints.format ?? byName(hints.filename) ?? byType(hints.contentType));
  if (format === undefined) {
    throw fail(
      "invalid_value",
      "neither the file's name nor its type says what it is; send format=jsonl, format=csv or format=parquet",
      { param: "format" },
    );
  }
  if (format === "parquet") {
    const what = packed ? "is a Parquet file packed with gzip; send it as it is" : "is named Parquet and is none";
    if (!is(PARQUET)) throw fail("invalid_dataset", `the file ${what}`, { param: "file" });
    return { format, unit: "row", rows: readParquet(path, options) };
  }
  const stored = createReadStream(path, { highWaterMark: PIECE_BYTES }) as AsyncIterable<Buffer>;
  const bytes = packed ? gunzip(stored, options.maxBytes) : stored;
  const rows = format === "csv" ? readCsv(bytes) : readJsonl(bytes);
  return { format, unit: "line", rows, ...(packed ? { compression: "gzip" as const } : {}) };
}

const PIECE_BYTES = 256 * 1024;

async function firstBytes(path: string): Promise<Buffer> {
  const handle = await open(path, "r");
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(8), 0, 8, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}

function byName(filename: string | undefined): FileFormat | undefined {
  const extension = /\.([a-z]+)(?:\.gz)?$/i.exec(filename ?? "")?.[1]?.toLowerCase() ?? "";
  return Object.hasOwn(BY_EXTENSION, extension) ? BY_EXTENSION[extension] : undefined;
}

function byType(contentType: string | undefined): FileFormat | undefined {
  const type = contentType?.split(";")[0]?.trim().toLowerCase() ?? "";
  return Object.hasOwn(BY_TYPE, type) ? BY_TYPE[type] : undefined;
}
