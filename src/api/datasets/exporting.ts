/** A dataset as a file to download. */
import { tar } from "../../artifacts/tar.ts";
import { DATA_FILE, datasetCard } from "../../datasets/card.ts";
import type { Dataset } from "../../datasets/dataset.ts";
import { type ExportFormat, exportLines } from "../../datasets/export.ts";
import { writeParquet } from "../../datasets/parquet/write.ts";
import type { DatasetRecord } from "../../db/dataset-store.ts";
import type { Stage } from "./keeping.ts";

export interface Download {
  filename: string;
  contentType: string;
  pieces: AsyncGenerator<Uint8Array>;
}

export function exportFile(dataset: Dataset, record: DatasetRecord, format: ExportFormat, stage: Stage): Download {
  switch (format) {
    case "parquet":
      return {
        filename: `${dataset.id}.parquet`,
        contentType: "application/vnd.apache.parquet",
        pieces: writeParquet(dataset.rows()),
      };
    case "hub":
      return {
        filename: `${dataset.id}.tar`,
        contentType: "application/x-tar",
        pieces: hubFolder(dataset, record, stage),
      };
    default:
      return {
        filename: `${dataset.id}.${format}.jsonl`,
        contentType: "application/jsonl",
        pieces: exportLines(dataset, format),
      };
  }
}

/** An archive names each file's size before the file, so the Parquet file is written aside first. */
async function* hubFolder(dataset: Dataset, record: DatasetRecord, stage: Stage): AsyncGenerator<Uint8Array> {
  const folder = await stage();
  try {
    const file = await folder.create(STAGED_FILE);
    let bytes = 0;
    for await (const piece of writeParquet(dataset.rows())) {
      bytes += piece.length;
      await file.write(piece);
    }
    await file.close();
    const card = Buffer.from(datasetCard(record));
    const modified = record.createdAt;
    const archive = tar([
      { name: "README.md", bytes: card.length, modified, read: () => once(card) },
      { name: DATA_FILE, bytes, modified, read: () => folder.stream(STAGED_FILE) },
    ]);
    yield* archive.read();
  } finally {
    await folder.discard();
  }
}

const STAGED_FILE = "train.parquet";

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
