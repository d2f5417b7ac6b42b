/**
 * The heart of the queue: one SQL statement changes jobs and writes their events. Either both happen or neither does,
 * and since the job's row is locked while its counter grows, events are dense and become visible in their order.
 */
import { type SQL, sql } from "drizzle-orm";
import type { PgUpdateSetSource } from "drizzle-orm/pg-core";
import type { TypedQueryBuilder } from "drizzle-orm/query-builders/query-builder";
import type { Db } from "../db/database.ts";
import { guarded } from "../db/errors.ts";
import { jobEvents, jobs } from "../db/schema/jobs.ts";
import type { Bell } from "./bell.ts";
import type { JobRecord, NewEvent } from "./records.ts";

/** What every operation of the queue works on. */
export interface JobsDb {
  db: Db;
  bell: Bell;
}

export interface Transition {
  where: SQL | undefined;
  set: PgUpdateSetSource<typeof jobs>;
  events?: readonly NewEvent[];
  /** The status, or what is wanted, changes: an event that says so comes last. */
  announce?: boolean;
  /** Further parts of the statement, by name; they may read the changed rows from `changed`. */
  also?: Record<string, SQL>;
}

/** Changes all jobs that `where` finds; returns them as they are afterwards. */
export async function transition(deps: JobsDb, change: Transition): Promise<JobRecord[]> {
  const { where, set, events = [], announce = false, also = {} } = change;
  const count = events.length + (announce ? 1 : 0);
  const update = deps.db
    .update(jobs)
    .set({ ...set, lastSeq: sql`${jobs.lastSeq} + ${count}::integer` })
    .where(where)
    .returning();
  const parts = count > 0 ? { events: writeEvents(events, announce), ...also } : also;
  return writeJobs(deps, update, parts);
}

/** Runs `statement` as `changed`, with the other parts beside it; whoever waits for what it did is woken. */
export async function writeJobs(
  { db, bell }: JobsDb,
  statement: TypedQueryBuilder<typeof jobs._.columns>,
  parts: Record<string, SQL>,
): Promise<JobRecord[]> {
  const changed = db.$with("changed").as(statement);
  const others = Object.entries(parts).map(([name, part]) => db.$with(name, {}).as(part));
  const rows = await guarded(
    db
      .with(changed, ...others)
      .select()
      .from(changed),
  );
  const written = rows.map(toJob);
  for (const job of written) {
    if (parts.events) bell.ring(`events:${job.id}`);
    if (job.status === "queued") bell.ring("queued");
  }
  return written;
}

/** The documents are what they were given as; the database keeps them as they are. */
export function toJob(row: typeof jobs.$inferSelect): JobRecord {
  return row as JobRecord;
}

/** Events for the rows of `changed`, whose counter has grown by as many: first the given ones, then the status. */
export function writeEvents(events: readonly NewEvent[], announce: boolean): SQL {
  const after = events.length + (announce ? 1 : 0);
  const given = events.map(
    ({ type, data }, i) => sql`
      select id, last_seq - ${after - i - 1}::integer, ${sql.param(type, jobEvents.type)}::text, ${sql.param(data, jobEvents.data)}::json, now()
      from changed`,
  );
  const all = announce ? [...given, STATUS_EVENT] : given;
  return sql`insert into ${jobEvents} (job_id, seq, type, data, at) ${sql.join(all, sql` union all `)}`;
}

/** How a status reads as an event; the terminal ones have types of their own, by which a follower knows the end. */
const STATUS_EVENT = sql`
  select id, last_seq,
    case status when 'succeeded' then 'job.completed' when 'failed' then 'job.failed' when 'cancelled' then 'job.cancelled'
      else 'job.status' end,
    case when status in ('succeeded', 'cancelled') then json_build_object('status', status, 'result', result)
      when status = 'failed' then json_build_object('status', status, 'error', error)
      else json_build_object('status', status, 'wanted', wanted, 'attempt', attempts) end,
    now()
  from changed`;
