import { sql } from "drizzle-orm";
import { bigint, index, integer, pgTable, timestamp } from "drizzle-orm/pg-core";
import { document, exactText, metadataColumn } from "../columns.ts";

/**
 * Heads of datasets. The rows lie in the artefact store, in a folder named after `content_hash`; several heads may share one.
 * Deleting hides: jobs that were made from a dataset go on naming it.
 */
export const datasets = pgTable(
  "datasets",
  {
    id: exactText().primaryKey(),
    name: exactText(),
    contentHash: exactText("content_hash").notNull(),
    indexHash: exactText("index_hash").notNull(),
    rows: integer().notNull(),
    bytes: bigint({ mode: "number" }).notNull(),
    /** Those that any row has, in the order of row.ts. */
    columns: document().notNull(),
    duplicates: integer().notNull(),
    /** Where the rows came from. */
    source: document().notNull(),
    metadata: metadataColumn().notNull(),
    createdAt: timestamp("created_at", { withTimezone: true, precision: 3 }).notNull(),
    deletedAt: timestamp("deleted_at", { withTimezone: true, precision: 3 }),
  },
  (table) => [
    index("datasets_created").on(table.createdAt, table.id),
    index("datasets_content").on(table.contentHash).where(sql`deleted_at is null`),
  ],
);
