import type { PgDatabase, PgQueryResultHKT } from "drizzle-orm/pg-core";
import { openPglite } from "./pglite.ts";
import { openPostgres } from "./postgres.ts";
import type { schema } from "./schema/tables.ts";

/** One type for both databases. Inside `db.transaction(async (tx) => …)` use `tx` only: on PGlite `db` would wait for ever. */
export type Db = PgDatabase<PgQueryResultHKT, typeof schema>;

/** What this directory writes to; pino's loggers fit. */
export interface DatabaseLog {
  debug(details: object, message: string): void;
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
  error(details: object, message: string): void;
}

export interface Database {
  db: Db;
  /** With "pglite" this process is the only one that has the data; with "postgres" other servers may share it. */
  kind: "pglite" | "postgres";
  /** Resolves when the database answers; rejects with `database_unavailable` within a few seconds otherwise. */
  ping(): Promise<void>;
  /** Ends connections, writes everything out and releases the lock. May be called twice. */
  close(): Promise<void>;
}

export interface DatabaseOptions {
  /** The embedded database lives in `<dataDir>/pglite`, its lock in `<dataDir>/pglite.lock`. */
  dataDir: string;
  /** `postgres://user:password@host:port/name`; without it the embedded database is used. */
  databaseUrl?: string | undefined;
  log?: DatabaseLog | undefined;
}

const SILENT: DatabaseLog = { debug() {}, info() {}, warn() {}, error() {} };

/** Opens the database and brings its tables up to date. Errors say what to do (`data_dir_locked`, `database_unavailable`). */
export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  const log = options.log ?? SILENT;
  if (options.databaseUrl) return openPostgres(options.databaseUrl, log);
  return openPglite(options.dataDir, log);
}
