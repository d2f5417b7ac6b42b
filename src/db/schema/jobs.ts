import { sql } from "drizzle-orm";
import {
  bigint,
  boolean,
  check,
  doublePrecision,
  index,
  integer,
  pgTable,
  primaryKey,
  timestamp,
} from "drizzle-orm/pg-core";
import { document, exactText, metadataColumn, numbersColumn } from "../columns.ts";

/**
 * Durable jobs, finished or not. Times are the database's (`now()`), so that workers on several machines agree on when a
 * lease runs out. Nobody but src/jobs writes here.
 */
export const jobs = pgTable(
  "jobs",
  {
    id: exactText().primaryKey(),
    /** Which handler runs it. */
    kind: exactText().notNull(),
    status: exactText().notNull(),
    /** The request with every default filled in. */
    config: document().notNull(),
    configHash: exactText("config_hash").notNull(),
    seed: bigint({ mode: "number" }).notNull(),
    metadata: metadataColumn().notNull(),
    progress: document(),
    /** The last step that this attempt reported; null: it has not come to its steps. */
    attemptStep: bigint("attempt_step", { mode: "number" }),
    /** The latest value of each metric; null is one that was no finite number. */
    metrics: numbersColumn().notNull().default({}),
    result: document(),
    error: document(),
    /** What the one who runs it is asked to do. */
    wanted: exactText(),
    /** Grows at every claim. A writer that presents an older one has lost the job to another. */
    leaseToken: bigint("lease_token", { mode: "number" }).notNull().default(0),
    leaseOwner: exactText("lease_owner"),
    leaseUntil: timestamp("lease_until", { withTimezone: true, precision: 3 }),
    /** How often it was claimed. */
    attempts: integer().notNull().default(0),
    /** How often in a row it lost its worker at the same place. */
    crashes: integer().notNull().default(0),
    /** That place: the `attempt_step` of the attempt that was lost last. */
    crashStep: bigint("crash_step", { mode: "number" }),
    /** Number of its last event: the counter that keeps events dense. */
    lastSeq: integer("last_seq").notNull().default(0),
    createdAt: timestamp("created_at", { withTimezone: true, precision: 3 }).notNull().default(sql`now()`),
    startedAt: timestamp("started_at", { withTimezone: true, precision: 3 }),
    finishedAt: timestamp("finished_at", { withTimezone: true, precision: 3 }),
  },
  (table) => [
    index("jobs_created").on(table.createdAt, table.id),
    // Workers ask every second; few rows are queued or running at a time.
    index("jobs_queued").on(table.createdAt, table.id).where(sql`status = 'queued'`),
    index("jobs_running").on(table.leaseUntil).where(sql`status = 'running'`),
    check("jobs_status", sql`${table.status} in ('queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')`),
    check("jobs_lease", sql`(${table.status} = 'running') = (${table.leaseUntil} is not null)`),
    check(
      "jobs_wanted",
      sql`${table.wanted} is null or (${table.wanted} in ('pause', 'cancel') and ${table.status} = 'running')`,
    ),
  ],
);

/** What happened to a job, in order: seq is 1, 2, 3, … without gaps. Rows are only ever added. */
export const jobEvents = pgTable(
  "job_events",
  {
    jobId: exactText("job_id").notNull(),
    seq: integer().notNull(),
    type: exactText().notNull(),
    data: document().notNull(),
    at: timestamp({ withTimezone: true, precision: 3 }).notNull(),
  },
  (table) => [primaryKey({ columns: [table.jobId, table.seq] })],
);

/** Series of a job. A step that is done again after a resume overwrites what it wrote the first time. */
export const jobMetrics = pgTable(
  "job_metrics",
  {
    jobId: exactText("job_id").notNull(),
    step: bigint({ mode: "number" }).notNull(),
    name: exactText().notNull(),
    /** null: infinite, or not a number. */
    value: doublePrecision(),
  },
  (table) => [primaryKey({ columns: [table.jobId, table.step, table.name] })],
);

/** Weights that a job or a training session has saved. Deleting hides; the row goes on saying what they were. */
export const checkpoints = pgTable(
  "checkpoints",
  {
    id: exactText().primaryKey(),
    /** null: saved by a training session. */
    jobId: exactText("job_id"),
    step: bigint({ mode: "number" }).notNull(),
    /** What the artefact holds, such as an adapter or whole weights. */
    kind: exactText().notNull(),
    /** Key of the files in the artefact store. */
    artifact: exactText().notNull(),
    weightsHash: exactText("weights_hash").notNull(),
    /** Everything it was made of: parents, configuration, state of the optimiser's files. */
    config: document().notNull(),
    isBest: boolean("is_best").notNull().default(false),
    createdAt: timestamp("created_at", { withTimezone: true, precision: 3 }).notNull().default(sql`now()`),
    deletedAt: timestamp("deleted_at", { withTimezone: true, precision: 3 }),
  },
  (table) => [
    index("checkpoints_job").on(table.jobId, table.step),
    index("checkpoints_created").on(table.createdAt, table.id),
  ],
);
