import { drizzle } from "drizzle-orm/postgres-js";
import { migrate } from "drizzle-orm/postgres-js/migrator";
import type { Options } from "postgres";
import { fail, PreceptorError } from "../errors.ts";
import type { Database, DatabaseLog } from "./database.ts";
import { ANSWER_TIMEOUT_MS, driverError, guarded } from "./errors.ts";
import { MIGRATIONS_FOLDER, refuseNewerDatabase } from "./migrate.ts";
import { type PostgresAddress, parsePostgresAddress } from "./postgres-address.ts";
import { createDrizzleClient } from "./postgres-client.ts";
import { createSessions } from "./postgres-sessions.ts";
import { schema } from "./schema/tables.ts";

/** Our statements are small; ten in flight saturate a server of a few cores and leave room for other servers under PostgreSQL's default of 100. */
const POOL_SIZE = 10;
/** A server on the same network accepts within milliseconds; a request should not wait longer to learn that it does not. */
const CONNECT_TIMEOUT_S = 5;
/** Nothing we run takes a tenth of it; what does is stuck behind a lock. */
const STATEMENT_TIMEOUT_MS = 10_000;
/** A transaction whose client died without closing its socket must not keep its locks. */
const IDLE_IN_TRANSACTION_TIMEOUT_MS = 30_000;
/** Migrations of several servers that start together wait for each other this long. */
const MIGRATION_LOCK_TIMEOUT_MS = 120_000;
/** Any number that no other program takes an advisory lock with: "preceptor" on a telephone's keys. */
const MIGRATION_LOCK_KEY = 773_237_867;
/** Time for statements under way at shutdown. */
const CLOSE_TIMEOUT_S = 5;
/** A readiness probe must answer before its caller gives up. */
const PING_TIMEOUT_MS = 3_000;

/** Opens a pool on `url` and migrates under an advisory lock, so that servers may start at the same time. */
export async function openPostgres(url: string, log: DatabaseLog): Promise<Database> {
  const address = parsePostgresAddress(url);
  try {
    await migrateUnderLock(address, log);
  } catch (error) {
    throw explainStart(error, address.label);
  }
  const sessions = createSessions(address, POOL_SIZE, {
    silenceMs: ANSWER_TIMEOUT_MS,
    driver: driverOptions(log, {
      application_name: "preceptor",
      statement_timeout: STATEMENT_TIMEOUT_MS,
      idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_TIMEOUT_MS,
    }),
  });
  log.debug({ database: address.label }, "PostgreSQL connected");
  let closing: Promise<void> | undefined;
  return {
    kind: "postgres",
    db: drizzle(createDrizzleClient(sessions), { schema }),
    ping: async () => {
      await guarded(
        sessions.use(({ client }) => client`select 1`),
        PING_TIMEOUT_MS,
      );
    },
    close: () => {
      closing ??= sessions.close(CLOSE_TIMEOUT_S);
      return closing;
    },
  };
}

/** Drizzle's migrator takes no lock: of four servers on an empty database three fail without this. */
async function migrateUnderLock(address: PostgresAddress, log: DatabaseLog): Promise<void> {
  // One session holds the lock, one migrates.
  const sessions = createSessions(address, 2, {
    // Waiting for the lock is silent, and a migration may take its time.
    silenceMs: 0,
    driver: driverOptions(log, { application_name: "preceptor migrations", lock_timeout: MIGRATION_LOCK_TIMEOUT_MS }),
  });
  try {
    await sessions.use(async ({ client }) => {
      await client`select pg_advisory_lock(${MIGRATION_LOCK_KEY})`;
      const db = drizzle(createDrizzleClient(sessions), { schema });
      await migrate(db, { migrationsFolder: MIGRATIONS_FOLDER });
      await refuseNewerDatabase(db);
    });
  } finally {
    // Ends the session, which releases the lock.
    await sessions.close(CLOSE_TIMEOUT_S);
  }
}

function driverOptions(log: DatabaseLog, connection: Record<string, string | number>): Options<Record<string, never>> {
  return {
    connection,
    connect_timeout: CONNECT_TIMEOUT_S,
    // We use no array types; looking them up would cost every connection a query.
    fetch_types: false,
    onnotice: (notice) => log.debug({ notice: notice.message }, "PostgreSQL notice"),
  };
}

/** Why the first connection failed, in the server's own words where it answered. */
function explainStart(error: unknown, where: string): Error {
  if (error instanceof PreceptorError) return error;
  const driver = driverError(error);
  const reason = !driver ? String(error) : driver.message || driver.code || "unknown reason";
  return fail(
    "database_unavailable",
    `PostgreSQL at ${where} could not be used: ${reason}; check that it runs and that DATABASE_URL is right, or unset DATABASE_URL to use the embedded database`,
    { cause: driver },
  );
}
