import type { ArtifactStore, StagedFolder } from "../../artifacts/store.ts";
import { collectRows } from "../../datasets/collect.ts";
import { type Dataset, folderOf } from "../../datasets/dataset.ts";
import { type ExportFormat, exportLines } from "../../datasets/export.ts";
import { createDatasetOpener, type DatasetOpener } from "../../datasets/open.ts";
import type { Column, DatasetRow, RawRow } from "../../datasets/row.ts";
import { readUpload } from "../../datasets/upload.ts";
import type { Written } from "../../datasets/writer.ts";
import type { DatasetRecord, DatasetSource, DatasetStore } from "../../db/dataset-store.ts";
import type { PageQuery } from "../../db/records.ts";
import { fail } from "../../errors.ts";
import type { Part } from "../../http/multipart.ts";
import { unixSeconds } from "../../http/schemas.ts";
import { newId } from "../../ids.ts";
import { receiveForm, tooLarge, UPLOAD_FILE } from "./receive.ts";
import type { CreateDataset, DatasetResource, DatasetRowResource } from "./schemas.ts";

export interface DatasetService extends DatasetOpener {
  /** Throws `invalid_dataset` with the first bad rows; nothing is kept then, nor when `signal` fires. */
  create(request: CreateDataset, signal: AbortSignal): Promise<DatasetResource>;
  /** The same from a form as it arrives. `statedBytes`: what the request says it has, to refuse early. */
  upload(parts: AsyncIterable<Part>, signal: AbortSignal, statedBytes?: number): Promise<DatasetResource>;
  get(id: string): Promise<DatasetResource>;
  list(query: PageQuery): Promise<{ data: DatasetResource[]; hasMore: boolean }>;
  rows(
    id: string,
    page: { after?: number | undefined; limit: number },
  ): Promise<{ data: DatasetRowResource[]; hasMore: boolean }>;
  /** The lines of an export, and a name for the file. */
  export(id: string, format: ExportFormat): Promise<{ filename: string; lines: AsyncGenerator<Buffer> }>;
  /** Throws `conflict` while a job that is not finished names it. */
  remove(id: string): Promise<void>;
}

export interface DatasetServiceDeps {
  store: DatasetStore;
  artifacts: ArtifactStore;
  /** Largest file, in bytes. */
  maxFileBytes: number;
  /** Id of something unfinished that needs this dataset. */
  usedBy(id: string): Promise<string | undefined>;
}

/** Boundaries and fields of a form beside its file. */
const FORM_BYTES = 1024 * 1024;
/** A page of long rows ends early: a hundred of the longest would be more than a gigabyte. */
const PAGE_BYTES = 8 * 2 ** 20;

export function createDatasetService(deps: DatasetServiceDeps): DatasetService {
  const { store, artifacts, maxFileBytes, usedBy } = deps;
  const opener = createDatasetOpener({ store, artifacts });

  /** Whatever happens, nothing stays in the staging folder. */
  async function staged<T>(work: (folder: StagedFolder) => Promise<T>): Promise<T> {
    const folder = await artifacts.stage();
    try {
      return await work(folder);
    } finally {
      await folder.discard();
    }
  }

  async function keep(
    folder: StagedFolder,
    written: Written,
    head: { name: string | null; source: DatasetSource; metadata: Record<string, string> },
    signal: AbortSignal,
  ): Promise<DatasetResource> {
    signal.throwIfAborted();
    const record = { id: newId("ds"), ...head, ...written };
    return toResource(await store.insert(record, () => folder.place(folderOf(written.contentHash))));
  }

  return {
    ...opener,

    create: ({ rows, name = null, metadata }, signal) =>
      staged(async (folder) => {
        const written = await collectRows(numbered(rows), folder, { param: "rows", unit: "row", signal });
        return keep(folder, written, { name, source: { type: "rows" }, metadata }, signal);
      }),

    upload: (parts, signal, statedBytes = 0) =>
      staged(async (folder) => {
        if (statedBytes > maxFileBytes + FORM_BYTES) throw tooLarge(maxFileBytes);
        const { fields, file } = await receiveForm(parts, folder, maxFileBytes);
        const { filename, contentType, bytes } = file;
        const { format, rows } = await readUpload(folder, UPLOAD_FILE, {
          format: fields.format,
          filename,
          contentType,
        });
        const written = await collectRows(rows, folder, { param: "file", unit: "line", signal });
        await folder.removeFile(UPLOAD_FILE);
        const source = { type: "file" as const, format, bytes, ...(filename === undefined ? {} : { filename }) };
        return keep(
          folder,
          written,
          { name: fields.name ?? filename ?? null, source, metadata: fields.metadata },
          signal,
        );
      }),

    get: async (id) => toResource(await opener.find(id)),

    async list(query) {
      const { rows, hasMore } = await store.list(query);
      return { data: rows.map(toResource), hasMore };
    },

    async rows(id, { after, limit }) {
      const dataset = await opener.openDataset(id);
      const from = after === undefined ? 0 : after + 1;
      const data = await readPage(dataset, from, limit);
      return { data, hasMore: from + data.length < dataset.count };
    },

    async export(id, format) {
      const dataset = await opener.openDataset(id);
      return { filename: `${id}.${format}.jsonl`, lines: exportLines(dataset, format) };
    },

    async remove(id) {
      const user = await usedBy(id);
      if (user !== undefined) {
        throw fail("conflict", `${user} is not finished and needs ${id}; cancel it first, or delete this later`);
      }
      const gone = await store.remove(id, (contentHash) => artifacts.remove(folderOf(contentHash)));
      if (!gone) await opener.find(id);
    },
  };
}

function* numbered(rows: readonly unknown[]): Generator<RawRow> {
  for (const [i, value] of rows.entries()) yield { line: i + 1, value };
}

async function readPage(dataset: Dataset, from: number, limit: number): Promise<DatasetRowResource[]> {
  const data: DatasetRowResource[] = [];
  let bytes = 0;
  for await (const line of dataset.lines(from, from + limit)) {
    bytes += line.length;
    if (data.length > 0 && bytes > PAGE_BYTES) break;
    data.push({ object: "dataset.row", row: from + data.length, ...(JSON.parse(line.toString("utf8")) as DatasetRow) });
  }
  return data;
}

function toResource(record: DatasetRecord): DatasetResource {
  return {
    id: record.id,
    object: "dataset",
    created_at: unixSeconds(record.createdAt),
    name: record.name,
    content_hash: `sha256:${record.contentHash}`,
    rows: record.rows,
    bytes: record.bytes,
    columns: record.columns as Column[],
    duplicates: record.duplicates,
    source: record.source,
    metadata: record.metadata,
  };
}
