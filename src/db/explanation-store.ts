import { and, eq, inArray, lt, type SQL, sql } from "drizzle-orm";
import type { Db } from "./database.ts";
import { guarded } from "./errors.ts";
import { readPage } from "./page.ts";
import {
  type ExplanationChanges,
  type ExplanationRecord,
  type ExplanationStatus,
  type NewExplanation,
  type Page,
  type PageQuery,
  UNFINISHED,
  type UsageDocument,
} from "./records.ts";
import { explanations } from "./schema/explanations.ts";

/** How often a server touches what it works on. */
export const TOUCH_INTERVAL_MS = 60_000;
/** Unfinished and untouched for this long, five touches, belongs to a server that is gone. */
const ABANDONED_AFTER_MS = 5 * TOUCH_INTERVAL_MS;

const NO_USAGE: UsageDocument = { prompt_tokens: 0, completion_tokens: 0, cached_tokens: 0, scored_tokens: 0 };

export interface ExplanationQuery extends PageQuery {
  /** Teacher's id, any version. */
  teacher?: string | undefined;
  status?: ExplanationStatus | undefined;
  /** All of these pairs. */
  metadata?: Record<string, string> | undefined;
}

export interface ExplanationStore {
  insert(explanation: NewExplanation): Promise<ExplanationRecord>;
  /**
   * Changes an explanation that is in one of the states `from` (default: unfinished, so that a final state stays
   * final and of cancel and completion the first wins). undefined: it is not in such a state, or does not exist.
   */
  update(
    id: string,
    changes: ExplanationChanges,
    from?: readonly ExplanationStatus[],
  ): Promise<ExplanationRecord | undefined>;
  find(id: string): Promise<ExplanationRecord | undefined>;
  list(query: ExplanationQuery): Promise<Page<ExplanationRecord>>;
  /** Deletes for good; false if there is no such explanation. */
  remove(id: string): Promise<boolean>;
  /** Shows that this server still works on these; call it every TOUCH_INTERVAL_MS where servers share a database. */
  touch(ids: readonly string[]): Promise<void>;
  /**
   * What a stopped server left unfinished, oldest first. With `exclusive` (nobody else uses the database, as with PGlite)
   * that is everything unfinished, otherwise what no server has touched for five minutes.
   */
  listInterrupted(options: { exclusive: boolean }): Promise<ExplanationRecord[]>;
}

export function createExplanationStore(db: Db, now: () => Date = () => new Date()): ExplanationStore {
  const find = async (id: string): Promise<ExplanationRecord | undefined> => {
    const [row] = await guarded(db.select().from(explanations).where(eq(explanations.id, id)));
    return row && toRecord(row);
  };

  return {
    find,

    async insert(explanation) {
      const at = now();
      const { choices = [], usage = NO_USAGE, metadata = {} } = explanation;
      const values = { ...explanation, choices, usage, metadata, createdAt: at, updatedAt: at };
      const [row] = await guarded(db.insert(explanations).values(values).returning());
      return toRecord(row!);
    },

    async update(id, changes, from = UNFINISHED) {
      const [row] = await guarded(
        db
          .update(explanations)
          .set({ ...changes, updatedAt: now() })
          .where(and(eq(explanations.id, id), inArray(explanations.status, [...from])))
          .returning(),
      );
      return row && toRecord(row);
    },

    async list({ teacher, status, metadata, ...page }) {
      const filters: (SQL | undefined)[] = [
        teacher === undefined ? undefined : eq(explanations.teacherId, teacher),
        status === undefined ? undefined : eq(explanations.status, status),
        metadata && sql`${explanations.metadata} @> ${sql.param(metadata, explanations.metadata)}::jsonb`,
      ];
      const { rows, hasMore } = await readPage(
        explanations,
        page,
        ({ beyond, orderBy, limit }) =>
          db
            .select()
            .from(explanations)
            .where(and(...filters, beyond))
            .orderBy(...orderBy)
            .limit(limit),
        async (id) => (await find(id)) !== undefined,
      );
      return { rows: rows.map(toRecord), hasMore };
    },

    async remove(id) {
      const gone = await guarded(
        db.delete(explanations).where(eq(explanations.id, id)).returning({ id: explanations.id }),
      );
      return gone.length > 0;
    },

    async touch(ids) {
      if (ids.length === 0) return;
      await guarded(
        db
          .update(explanations)
          .set({ updatedAt: now() })
          .where(and(inArray(explanations.id, [...ids]), inArray(explanations.status, [...UNFINISHED]))),
      );
    },

    async listInterrupted({ exclusive }) {
      const abandoned = exclusive
        ? undefined
        : lt(explanations.updatedAt, new Date(now().getTime() - ABANDONED_AFTER_MS));
      const rows = await guarded(
        db
          .select()
          .from(explanations)
          // Literals, not parameters: only so does the planner see that the partial index applies.
          .where(and(sql`status in ('queued', 'in_progress')`, abandoned))
          .orderBy(explanations.createdAt, explanations.id),
      );
      return rows.map(toRecord);
    },
  };
}

/** The documents are what `insert` and `update` were given; the database keeps them as they are. */
function toRecord(row: typeof explanations.$inferSelect): ExplanationRecord {
  return row as ExplanationRecord;
}
