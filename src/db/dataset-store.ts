import { and, eq, isNull, sql } from "drizzle-orm";
import type { Db } from "./database.ts";
import { guarded } from "./errors.ts";
import { readPage } from "./page.ts";
import type { Page, PageQuery } from "./records.ts";
import { datasets } from "./schema/datasets.ts";

export interface DatasetRecord {
  id: string;
  name: string | null;
  contentHash: string;
  indexHash: string;
  rows: number;
  bytes: number;
  columns: string[];
  duplicates: number;
  source: DatasetSource;
  metadata: Record<string, string>;
  createdAt: Date;
  deletedAt: Date | null;
}

/** What the rows were read from. */
export interface DatasetSource {
  type: "file" | "rows" | "hub" | "derived" | "job";
  format?: "jsonl" | "csv" | "parquet";
  compression?: "gzip";
  filename?: string;
  /** Of the file as it was sent, or of all files of a hub. */
  bytes?: number;
  /** `hub`: where it lies, the commit that the revision stood for, and what of it was read. */
  repo?: string;
  revision?: string;
  config?: string | null;
  split?: string | null;
  files?: string[];
  /** `derived`: of which dataset, how, and which part of the outcome this is. */
  parent?: string;
  settings?: Record<string, unknown>;
  /** Which part of the outcome of a derivation, an upload with `dedupe` or a job: `kept`, `train`, `held_out`, `dropped`; `output`, `errors`, … */
  part?: string;
  /** What stayed out, and the dataset that has it with the reasons. */
  dropped?: { dataset: string; rows: number; reasons: Record<string, number> };
  /** `job`: which one, and from what. */
  job?: string;
  dataset?: string;
  teacher?: string | null;
  student?: string | null;
}

export type NewDataset = Omit<DatasetRecord, "createdAt" | "deletedAt">;

export interface DatasetStore {
  /** `place` puts the files where the head says they are; nobody removes or places the same contents meanwhile. */
  insert(dataset: NewDataset, place: () => Promise<void>): Promise<DatasetRecord>;
  /** Not the deleted ones. */
  find(id: string): Promise<DatasetRecord | undefined>;
  list(query: PageQuery): Promise<Page<DatasetRecord>>;
  /** Hides it; `unplace` removes the files once no other dataset has the same contents. False: there is none. */
  remove(id: string, unplace: (contentHash: string) => Promise<void>): Promise<boolean>;
}

/** First key of the advisory locks, so that they meet no others: "DS" and a number behind it. */
const LOCK_SPACE = 0x4453_0001;
/** Two files are renamed or unlinked; a slow network disk takes a while. */
const LOCKED_LIMIT_MS = 60_000;

export function createDatasetStore(db: Db, now: () => Date = () => new Date()): DatasetStore {
  const find = async (id: string): Promise<DatasetRecord | undefined> => {
    const [row] = await guarded(
      db
        .select()
        .from(datasets)
        .where(and(eq(datasets.id, id), isNull(datasets.deletedAt))),
    );
    return row && toRecord(row);
  };

  return {
    find,

    insert: (dataset, place) =>
      guarded(
        db.transaction(async (tx) => {
          await tx.execute(contentLock(dataset.contentHash));
          // First, so that a database that refuses leaves no files behind.
          const [row] = await tx
            .insert(datasets)
            .values({ ...dataset, createdAt: now() })
            .returning();
          await place();
          return toRecord(row!);
        }),
        LOCKED_LIMIT_MS,
      ),

    async list(page) {
      const { rows, hasMore } = await readPage(
        datasets,
        page,
        ({ beyond, orderBy, limit }) =>
          db
            .select()
            .from(datasets)
            .where(and(isNull(datasets.deletedAt), beyond))
            .orderBy(...orderBy)
            .limit(limit),
        // A page may go on behind one that was deleted meanwhile: its row is still there.
        async (id) =>
          (await guarded(db.select({ id: datasets.id }).from(datasets).where(eq(datasets.id, id)))).length > 0,
      );
      return { rows: rows.map(toRecord), hasMore };
    },

    async remove(id, unplace) {
      const found = await find(id);
      if (!found) return false;
      return guarded(
        db.transaction(async (tx) => {
          await tx.execute(contentLock(found.contentHash));
          const gone = await tx
            .update(datasets)
            .set({ deletedAt: now() })
            .where(and(eq(datasets.id, id), isNull(datasets.deletedAt)))
            .returning({ id: datasets.id });
          const [other] = await tx
            .select({ id: datasets.id })
            .from(datasets)
            .where(and(eq(datasets.contentHash, found.contentHash), isNull(datasets.deletedAt)))
            .limit(1);
          if (!other) await unplace(found.contentHash);
          return gone.length > 0;
        }),
        LOCKED_LIMIT_MS,
      );
    },
  };
}

const contentLock = (contentHash: string) =>
  sql`select pg_advisory_xact_lock(${LOCK_SPACE}::int, hashtext(${contentHash}::text))`;

function toRecord(row: typeof datasets.$inferSelect): DatasetRecord {
  return { ...row, columns: row.columns as string[], source: row.source as DatasetSource };
}
