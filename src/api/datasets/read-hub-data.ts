/** Files of a hub → candidates of rows, one file after the other. */
import { stat } from "node:fs/promises";
import { basename } from "node:path";
import type { CollectOptions } from "../../datasets/collect.ts";
import type { RawRow } from "../../datasets/row.ts";
import { type ReadFileOptions, readFileRows } from "../../datasets/upload.ts";
import type { DatasetSource } from "../../db/dataset-store.ts";
import type { ResolvedData } from "../../model/hub/resolve-data.ts";
import { tooLarge } from "./receive.ts";

export interface HubRows extends Pick<CollectOptions, "param" | "unit"> {
  rows: AsyncIterable<RawRow>;
  source: DatasetSource;
}

export async function readHubData(data: ResolvedData, asked: string, options: ReadFileOptions): Promise<HubRows> {
  let bytes = 0;
  for (const path of data.paths) bytes += (await stat(path)).size;
  if (bytes > options.maxBytes) throw tooLarge(options.maxBytes);
  const read = (path: string) => readFileRows(path, { filename: basename(path), contentType: undefined }, options);
  const { commit: revision, names: files, split, config } = data;
  const { format, unit } = formOf(files[0]!);
  const repo = asked.replace(/^hf:/, "").split(/[@:]/)[0]!;
  return {
    param: "source",
    unit,
    rows: allRows(data.paths, read),
    source: { type: "hub", format, repo, revision, split, config, files, bytes },
  };
}

/** Lines are counted in each file; where there are several, faults name theirs. */
async function* allRows(
  paths: readonly string[],
  read: (path: string) => Promise<{ rows: AsyncIterable<RawRow> }>,
): AsyncGenerator<RawRow> {
  for (const path of paths) {
    const { rows } = await read(path);
    for await (const row of rows) {
      yield paths.length === 1 || !("fault" in row) ? row : { ...row, fault: `(${basename(path)}) ${row.fault}` };
    }
  }
}

function formOf(name: string): { format: "parquet" | "jsonl" | "csv"; unit: "line" | "row" } {
  if (name.endsWith(".parquet")) return { format: "parquet", unit: "row" };
  return { format: /\.csv(\.gz)?$/.test(name) ? "csv" : "jsonl", unit: "line" };
}
