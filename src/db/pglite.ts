import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { PGlite } from "@electric-sql/pglite";
import { drizzle } from "drizzle-orm/pglite";
import { migrate } from "drizzle-orm/pglite/migrator";
import { fail, PreceptorError } from "../errors.ts";
import type { Database, DatabaseLog } from "./database.ts";
import { guarded } from "./errors.ts";
import { acquireLock, type Lock } from "./lock.ts";
import { MIGRATIONS_FOLDER, refuseNewerDatabase } from "./migrate.ts";
import { schema } from "./schema/tables.ts";

/**
 * PGlite is a single backend: nothing vacuums, analyses or writes checkpoints beside it, so the write-ahead log grows
 * until we say `checkpoint`. On tables of this size it takes milliseconds, during which the process does nothing else.
 */
const MAINTENANCE_INTERVAL_MS = 30 * 60_000;

/** Opens the embedded database in `<dataDir>/pglite` behind its lock. The first start creates it, which takes seconds. */
export async function openPglite(dataDir: string, log: DatabaseLog): Promise<Database> {
  const directory = resolve(dataDir);
  const folder = join(directory, "pglite");
  const lock = await prepare(directory);
  try {
    const database = await fromPglite(await PGlite.create({ dataDir: folder }), log, lock);
    log.debug({ folder }, "embedded database open");
    return database;
  } catch (error) {
    await lock.release();
    if (error instanceof PreceptorError) throw error;
    throw fail(
      "database_unavailable",
      `the embedded database in ${folder} did not open (${firstLine(error)}); restore the folder from a backup, or move it away to begin with an empty one`,
      { cause: error },
    );
  }
}

/** Everything but the opening: also how tests wrap a database in memory. */
export async function fromPglite(client: PGlite, log: DatabaseLog, lock?: Lock): Promise<Database> {
  const db = drizzle(client, { schema });
  try {
    await migrate(db, { migrationsFolder: MIGRATIONS_FOLDER });
    await refuseNewerDatabase(db);
  } catch (error) {
    await client.close();
    throw error;
  }
  const timer = setInterval(() => {
    maintain(client).catch((error: unknown) => log.warn({ err: error }, "maintenance of the embedded database failed"));
  }, MAINTENANCE_INTERVAL_MS);
  timer.unref();
  const close = async (): Promise<void> => {
    clearInterval(timer);
    try {
      if (!client.closed) await client.close();
    } finally {
      await lock?.release();
    }
  };
  let closing: Promise<void> | undefined;
  return {
    kind: "pglite",
    db,
    ping: async () => void (await guarded(client.query("select 1"))),
    close: () => {
      closing ??= close();
      return closing;
    },
  };
}

/** Two statements, two calls: VACUUM refuses to run in the transaction that one call would be. */
export async function maintain(client: PGlite): Promise<void> {
  await client.exec("vacuum analyze");
  await client.exec("checkpoint");
}

async function prepare(directory: string): Promise<Lock> {
  try {
    await mkdir(directory, { recursive: true });
    return await acquireLock(join(directory, "pglite.lock"), directory);
  } catch (error) {
    if (error instanceof PreceptorError) throw error;
    throw fail(
      "database_unavailable",
      `the data directory ${directory} cannot be used (${firstLine(error)}); make it writable or choose another PRECEPTOR_DATA_DIR`,
      { cause: error },
    );
  }
}

function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n")[0] ?? "";
}
