import { boolean, doublePrecision, index, integer, pgTable, primaryKey, timestamp } from "drizzle-orm/pg-core";
import { document, exactText, metadataColumn } from "../columns.ts";

/**
 * Registered models: one id space for teachers and students. A row says who exists now; what a version is made of
 * stands in `model_versions`. A role is held when its body is not null.
 */
export const models = pgTable(
  "models",
  {
    id: exactText().primaryKey(),
    /** The current version. */
    version: integer().notNull(),
    /** The version this registration began with: lower ones belong to a deleted model that bore the same id. */
    firstVersion: integer("first_version").notNull(),
    pinned: boolean().notNull().default(false),
    metadata: metadataColumn().notNull(),
    /** The registration body of each role, to tell "same again" (200) from "another" (409). */
    teacherBody: document("teacher_body"),
    studentBody: document("student_body"),
    createdAt: timestamp("created_at", { withTimezone: true, precision: 3 }).notNull(),
    updatedAt: timestamp("updated_at", { withTimezone: true, precision: 3 }).notNull(),
    /** Deleting hides; versions stay readable. */
    deletedAt: timestamp("deleted_at", { withTimezone: true, precision: 3 }),
  },
  (table) => [index("models_created").on(table.createdAt, table.id)],
);

/** Everything a version is made of. Rows are never deleted: explanations and scores name them for good. */
export const modelVersions = pgTable(
  "model_versions",
  {
    modelId: exactText("model_id").notNull(),
    version: integer().notNull(),
    /** The `model` string as the caller gave it. */
    source: exactText().notNull(),
    adapter: exactText(),
    adapterHash: exactText("adapter_hash"),
    weightsHash: exactText("weights_hash"),
    tokenizerHash: exactText("tokenizer_hash"),
    precision: exactText().notNull(),
    device: exactText().notNull(),
    contextLength: integer("context_length"),
    /** Name of a secret, never the secret. */
    credential: exactText(),
    /** Where the tokenizer of a remote model comes from. */
    tokenizer: exactText(),
    /** The temperature that a remote model's logits are divided by already. */
    tempered: doublePrecision(),
    teacherFormat: document("teacher_format"),
    studentFormat: document("student_format"),
    createdAt: timestamp("created_at", { withTimezone: true, precision: 3 }).notNull(),
  },
  // No foreign key: rows of `models` are never deleted either, and Drizzle writes references as "public"."models",
  // which breaks a database whose search_path names another schema.
  (table) => [primaryKey({ columns: [table.modelId, table.version] })],
);
