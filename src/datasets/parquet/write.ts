/** A dataset as one Parquet file, written while it is read. */
import { ByteWriter, ParquetWriter } from "hyparquet-writer";
import type { DatasetRow } from "../row.ts";

/**
 * Rows of a group: enough that columns compress, few enough that a group is in memory and that readers, who take whole
 * groups, show the first rows soon. Long rows make it fewer.
 */
const GROUP_ROWS = 10_000;
const GROUP_CHARACTERS = 16 * 2 ** 20;

const text = { type: "BYTE_ARRAY", converted_type: "UTF8", logical_type: { type: "STRING" } } as const;
/**
 * The same columns for every dataset, so that files of several can be read as one. `metadata` and `provenance` are JSON in a text: their keys
 * differ from row to row, and as a struct every reader would see all keys of all rows.
 */
const SCHEMA = [
  { name: "schema", num_children: 6 },
  { name: "id", repetition_type: "OPTIONAL", ...text },
  { name: "question", repetition_type: "REQUIRED", ...text },
  { name: "solution", repetition_type: "REQUIRED", ...text },
  { name: "reasoning_trace", repetition_type: "OPTIONAL", ...text },
  { name: "metadata", repetition_type: "OPTIONAL", ...text },
  { name: "provenance", repetition_type: "OPTIONAL", ...text },
] as const;

export async function* writeParquet(rows: AsyncIterable<DatasetRow>): AsyncGenerator<Buffer> {
  const bytes = new ByteWriter();
  const writer = new ParquetWriter({ writer: bytes, schema: [...SCHEMA], createdBy: "preceptor" });
  const take = (): Buffer => {
    const taken = Buffer.from(bytes.getBytes());
    bytes.index = 0;
    return taken;
  };
  let group: DatasetRow[] = [];
  let characters = 0;
  const flush = async (): Promise<Buffer> => {
    await writer.write({ columnData: toColumns(group), rowGroupSize: group.length });
    group = [];
    characters = 0;
    return take();
  };
  for await (const row of rows) {
    group.push(row);
    characters += row.question.length + row.solution.length + (row.reasoning_trace?.length ?? 0);
    if (group.length === GROUP_ROWS || characters >= GROUP_CHARACTERS) yield await flush();
  }
  if (group.length > 0) yield await flush();
  await writer.finish();
  yield take();
}

function toColumns(rows: readonly DatasetRow[]): { name: string; data: (string | undefined)[] }[] {
  const column = (name: string, of: (row: DatasetRow) => string | undefined) => ({ name, data: rows.map(of) });
  return [
    column("id", ({ id }) => id),
    column("question", ({ question }) => question),
    column("solution", ({ solution }) => solution),
    column("reasoning_trace", (row) => row.reasoning_trace),
    column("metadata", ({ metadata }) => metadata && JSON.stringify(metadata)),
    column("provenance", ({ provenance }) => provenance && JSON.stringify(provenance)),
  ];
}
