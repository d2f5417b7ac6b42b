/** Writes rows into a staged folder: `rows.jsonl`, `rows.index`, and everything the head must know of them. */
import { createHash } from "node:crypto";
import type { ArtifactWriter, StagedFolder } from "../artifacts/store.ts";
import { createHashTable } from "./hash-table.ts";
import { hashLine, hashQuestion, indexHeader, indexRecord, offsetBytes } from "./index-file.ts";
import { COLUMNS, type Column, type DatasetRow } from "./row.ts";

export const ROWS_FILE = "rows.jsonl";
export const INDEX_FILE = "rows.index";
/** Index records wait here, since their number stands before them. */
const RECORDS_FILE = "rows.records";

/** What a dataset is, but for its name. */
export interface Written {
  /** Hex sha256 of `rows.jsonl`: the folder is named after it. */
  contentHash: string;
  indexHash: string;
  rows: number;
  bytes: number;
  columns: Column[];
  /** Rows whose question stood in an earlier row already. */
  duplicates: number;
}

export interface DatasetWriter {
  add(row: DatasetRow): Promise<void>;
  finish(): Promise<Written>;
}

export async function createDatasetWriter(folder: StagedFolder): Promise<DatasetWriter> {
  const lines = await folder.create(ROWS_FILE);
  const records = await folder.create(RECORDS_FILE);
  const content = createHash("sha256");
  const questions = createHashTable();
  const columns = new Set<Column>();
  let rows = 0;
  let bytes = 0;
  return {
    async add(row) {
      const line = Buffer.from(`${JSON.stringify(row)}\n`);
      const questionHash = hashQuestion(row.question);
      questions.add(questionHash, rows);
      for (const column of Object.keys(row) as Column[]) columns.add(column);
      content.update(line);
      const record = indexRecord({ offset: bytes, lineHash: hashLine(line), questionHash });
      rows++;
      bytes += line.length;
      await lines.write(line);
      await records.write(record);
    },

    async finish() {
      await records.write(offsetBytes(bytes));
      await lines.close();
      await records.close();
      return {
        contentHash: content.digest("hex"),
        indexHash: await writeIndex(folder, rows),
        rows,
        bytes,
        columns: COLUMNS.filter((column) => columns.has(column)),
        duplicates: rows - questions.size,
      };
    },
  };
}

async function writeIndex(folder: StagedFolder, rows: number): Promise<string> {
  const index: ArtifactWriter = await folder.create(INDEX_FILE);
  const hash = createHash("sha256");
  const put = async (bytes: Buffer): Promise<void> => {
    hash.update(bytes);
    await index.write(bytes);
  };
  await put(indexHeader(rows));
  for await (const bytes of folder.stream(RECORDS_FILE)) await put(bytes);
  await index.close();
  await folder.removeFile(RECORDS_FILE);
  return hash.digest("hex");
}
