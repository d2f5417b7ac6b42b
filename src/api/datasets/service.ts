import type { ArtifactStore } from "../../artifacts/store.ts";
import { collectRows } from "../../datasets/collect.ts";
import { type Dataset, folderOf } from "../../datasets/dataset.ts";
import type { ExportFormat } from "../../datasets/export.ts";
import { type HubSource, parseHubSource } from "../../datasets/hub-source.ts";
import { createDatasetOpener, type DatasetOpener } from "../../datasets/open.ts";
import type { DatasetRow, RawRow } from "../../datasets/row.ts";
import { type FoundLine, parseConditions, searchLines } from "../../datasets/search.ts";
import { readFileRows } from "../../datasets/upload.ts";
import type { DatasetStore } from "../../db/dataset-store.ts";
import type { PageQuery } from "../../db/records.ts";
import { fail } from "../../errors.ts";
import type { Part } from "../../http/multipart.ts";
import type { ResolvedData } from "../../model/hub/resolve-data.ts";
import { derive } from "./derive.ts";
import { type Download, exportFile } from "./exporting.ts";
import { createKeeping } from "./keeping.ts";
import { readHubData } from "./read-hub-data.ts";
import { receiveForm, tooLarge, UPLOAD_FILE } from "./receive.ts";
import { toResource } from "./resource.ts";
import type {
  CreateDataset,
  DatasetResource,
  DatasetRowResource,
  DerivationResource,
  DeriveDataset,
} from "./schemas.ts";

export interface DatasetService extends DatasetOpener {
  /** Throws `invalid_dataset` with the first bad rows; nothing is kept then, nor when `signal` fires. */
  create(request: CreateDataset, signal: AbortSignal): Promise<DatasetResource>;
  /** The same from a form as it arrives. `statedBytes`: what the request says it has, to refuse early. */
  upload(parts: AsyncIterable<Part>, signal: AbortSignal, statedBytes?: number): Promise<DatasetResource>;
  get(id: string): Promise<DatasetResource>;
  list(query: PageQuery): Promise<{ data: DatasetResource[]; hasMore: boolean }>;
  /** `metadata`: conditions as search.ts reads them. */
  rows(
    id: string,
    page: { after?: number | undefined; limit: number; metadata?: string | undefined },
  ): Promise<{ data: DatasetRowResource[]; hasMore: boolean }>;
  export(id: string, format: ExportFormat): Promise<Download>;
  /** New datasets of this one's rows. Throws `invalid_dataset` where none would be left. */
  derive(id: string, request: DeriveDataset, signal: AbortSignal): Promise<DerivationResource>;
  /** Throws `conflict` while a job that is not finished names it. */
  remove(id: string): Promise<void>;
}

export interface DatasetServiceDeps {
  store: DatasetStore;
  artifacts: ArtifactStore;
  /** Largest file, in bytes. */
  maxFileBytes: number;
  /** The files of a dataset on a hub, here. */
  resolveHub(source: HubSource, signal: AbortSignal): Promise<ResolvedData>;
  /** Id of something unfinished that needs this dataset. */
  usedBy(id: string): Promise<string | undefined>;
}

/** Boundaries and fields of a form beside its file. */
const FORM_BYTES = 1024 * 1024;
/** A page of long rows ends early: a hundred of the longest would be more than a gigabyte. */
const PAGE_BYTES = 8 * 2 ** 20;

export function createDatasetService(deps: DatasetServiceDeps): DatasetService {
  const { store, artifacts, maxFileBytes, resolveHub, usedBy } = deps;
  const opener = createDatasetOpener({ store, artifacts });
  const keeping = createKeeping({ store, artifacts });

  return {
    ...opener,

    create: ({ rows = [], source: hub, dedupe, name, metadata }, signal) =>
      keeping.staged(async (stage) => {
        const folder = await stage();
        const read =
          hub === undefined
            ? { rows: numbered(rows), param: "rows", unit: "row" as const, source: { type: "rows" as const } }
            : await readHubData(await resolveHub(parseHubSource(hub), signal), hub, { signal, maxBytes: maxFileBytes });
        const written = await collectRows(read.rows, folder, { ...read, signal });
        const head = { name: name ?? hub ?? null, source: read.source, metadata };
        return toResource(await keeping.keepDeduped({ folder, written }, dedupe, head, stage, signal));
      }),

    upload: (parts, signal, statedBytes = 0) =>
      keeping.staged(async (stage) => {
        const folder = await stage();
        if (statedBytes > maxFileBytes + FORM_BYTES) throw tooLarge(maxFileBytes);
        const { fields, file } = await receiveForm(parts, folder, maxFileBytes);
        const { filename, contentType, bytes } = file;
        const hints = { format: fields.format, filename, contentType };
        const { rows, unit, ...read } = await readFileRows(folder.path(UPLOAD_FILE), hints, {
          signal,
          maxBytes: maxFileBytes,
        });
        const written = await collectRows(rows, folder, { param: "file", unit, signal });
        await folder.removeFile(UPLOAD_FILE);
        const source = { type: "file" as const, ...read, bytes, ...(filename === undefined ? {} : { filename }) };
        const head = { name: fields.name ?? filename ?? null, source, metadata: fields.metadata };
        return toResource(await keeping.keepDeduped({ folder, written }, fields.dedupe, head, stage, signal));
      }),

    derive: (id, request, signal) => derive(id, request, { opener, keeping }, signal),

    get: async (id) => toResource(await opener.find(id)),

    async list(query) {
      const { rows, hasMore } = await store.list(query);
      return { data: rows.map(toResource), hasMore };
    },

    async rows(id, { after, limit, metadata }) {
      const dataset = await opener.openDataset(id);
      const from = after === undefined ? 0 : after + 1;
      if (metadata === undefined) return readPage(numberedLines(dataset, from), limit);
      return readPage(searchLines(dataset, parseConditions(metadata), from), limit);
    },

    async export(id, format) {
      const dataset = await opener.openDataset(id);
      return exportFile(dataset, await opener.find(id), format, () => artifacts.stage());
    },

    async remove(id) {
      // First: `usedBy` looks for a text, and finds the beginning of an id as well.
      await opener.find(id);
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

async function* numberedLines(dataset: Dataset, from: number): AsyncGenerator<FoundLine> {
  let row = from;
  for await (const line of dataset.lines(from)) yield { row: row++, line };
}

/** One line more than the page has is looked for, so that it is known whether there is one. */
async function readPage(
  lines: AsyncIterable<FoundLine>,
  limit: number,
): Promise<{ data: DatasetRowResource[]; hasMore: boolean }> {
  const data: DatasetRowResource[] = [];
  let bytes = 0;
  for await (const { row, line } of lines) {
    bytes += line.length;
    if (data.length === limit || (data.length > 0 && bytes > PAGE_BYTES)) return { data, hasMore: true };
    data.push({ object: "dataset.row", row, ...(JSON.parse(line.toString("utf8")) as DatasetRow) });
  }
  return { data, hasMore: false };
}
