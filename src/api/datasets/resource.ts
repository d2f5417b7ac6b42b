import type { Column } from "../../datasets/row.ts";
import type { DatasetRecord } from "../../db/dataset-store.ts";
import { unixSeconds } from "../../http/schemas.ts";
import type { DatasetResource } from "./schemas.ts";

export function toResource(record: DatasetRecord): DatasetResource {
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
