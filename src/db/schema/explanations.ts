import { sql } from "drizzle-orm";
import { check, index, integer, pgTable, timestamp } from "drizzle-orm/pg-core";
import { document, exactText, metadataColumn } from "../columns.ts";

/**
 * Explanations, finished or under way. Teacher and student are named by id and version without a foreign key: the
 * record of what was said outlives any change to how models are kept.
 */
export const explanations = pgTable(
  "explanations",
  {
    id: exactText().primaryKey(),
    createdAt: timestamp("created_at", { withTimezone: true, precision: 3 }).notNull(),
    /** Also the sign of life of the server that works on it (`touch`). */
    updatedAt: timestamp("updated_at", { withTimezone: true, precision: 3 }).notNull(),
    status: exactText().notNull(),
    teacherId: exactText("teacher_id").notNull(),
    teacherVersion: integer("teacher_version").notNull(),
    /** Where `id@ckpt_…` was named; the version is then the one that it was trained from. */
    teacherCheckpoint: exactText("teacher_checkpoint"),
    studentId: exactText("student_id"),
    studentVersion: integer("student_version"),
    studentCheckpoint: exactText("student_checkpoint"),
    question: exactText().notNull(),
    solution: exactText().notNull(),
    choices: document().notNull(),
    best: integer(),
    usage: document().notNull(),
    sampling: document().notNull(),
    rankBy: document("rank_by"),
    prompt: exactText(),
    error: document(),
    metadata: metadataColumn().notNull(),
  },
  (table) => [
    index("explanations_created").on(table.createdAt, table.id),
    index("explanations_teacher").on(table.teacherId, table.createdAt, table.id),
    // Few rows are unfinished at a time: the sweep at start must not read the others.
    index("explanations_unfinished").on(table.updatedAt).where(sql`status in ('queued', 'in_progress')`),
    check("explanations_status", sql`${table.status} in ('queued', 'in_progress', 'completed', 'failed', 'cancelled')`),
  ],
);
