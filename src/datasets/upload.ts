/** A file as it was sent → candidates of rows; what cannot be read is refused by name, with what to do instead. */
import type { StagedFolder } from "../artifacts/store.ts";
import { fail } from "../errors.ts";
import { readCsv } from "./csv.ts";
import { readJsonl } from "./jsonl.ts";
import type { RawRow } from "./row.ts";

export const FILE_FORMATS = ["jsonl", "csv"] as const;
export type FileFormat = (typeof FILE_FORMATS)[number];

const BY_EXTENSION: Readonly<Record<string, FileFormat>> = {
  jsonl: "jsonl",
  ndjson: "jsonl",
  json: "jsonl",
  csv: "csv",
};
const BY_TYPE: Readonly<Record<string, FileFormat>> = {
  "application/jsonl": "jsonl",
  "application/x-jsonlines": "jsonl",
  "application/x-ndjson": "jsonl",
  "application/json": "jsonl",
  "text/csv": "csv",
};

/** First bytes of files that people send and that are no text. */
const REFUSED: readonly (readonly [magic: Buffer, what: string])[] = [
  [
    Buffer.from("PAR1"),
    "is a Parquet file, which this version does not read; convert it: python -c \"import pandas,sys; pandas.read_parquet(sys.argv[1]).to_json(sys.argv[2], orient='records', lines=True, force_ascii=False)\" in.parquet out.jsonl",
  ],
  [Buffer.from([0x1f, 0x8b]), "is compressed (gzip); send it unpacked"],
  [Buffer.from([0x28, 0xb5, 0x2f, 0xfd]), "is compressed (zstd); send it unpacked"],
  [Buffer.from("PK\x03\x04"), "is a ZIP or Excel file; save the table as CSV (UTF-8)"],
  [Buffer.from([0xff, 0xfe]), "is UTF-16; save it as UTF-8"],
  [Buffer.from([0xfe, 0xff]), "is UTF-16; save it as UTF-8"],
];

export interface FileHints {
  format?: FileFormat | undefined;
  filename: string | undefined;
  contentType: string | undefined;
}

/** Throws `invalid_dataset` where it is none of the formats. */
export async function readUpload(
  folder: StagedFolder,
  file: string,
  hints: FileHints,
): Promise<{ format: FileFormat; rows: AsyncIterable<RawRow> }> {
  const start = await folder.read(file, 0, 8);
  const refused = REFUSED.find(([magic]) => start.subarray(0, magic.length).equals(magic));
  if (refused) throw fail("invalid_dataset", `the file ${refused[1]}`, { param: "file" });
  const format = hints.format ?? byName(hints.filename) ?? byType(hints.contentType);
  if (format === undefined) {
    throw fail(
      "invalid_value",
      "neither the file's name nor its type says what it is; send format=jsonl or format=csv",
      {
        param: "format",
      },
    );
  }
  const bytes = folder.stream(file);
  return { format, rows: format === "csv" ? readCsv(bytes) : readJsonl(bytes) };
}

function byName(filename: string | undefined): FileFormat | undefined {
  const extension = /\.([a-z]+)$/i.exec(filename ?? "")?.[1]?.toLowerCase() ?? "";
  return Object.hasOwn(BY_EXTENSION, extension) ? BY_EXTENSION[extension] : undefined;
}

function byType(contentType: string | undefined): FileFormat | undefined {
  const type = contentType?.split(";")[0]?.trim().toLowerCase() ?? "";
  return Object.hasOwn(BY_TYPE, type) ? BY_TYPE[type] : undefined;
}
