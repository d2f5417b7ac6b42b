import { fail, PreceptorError } from "../errors.ts";

/**
 * The longest that a caller waits for the database: a statement may run for STATEMENT_TIMEOUT_MS (see postgres.ts),
 * this adds the way there and back. Without it a server that is frozen, not gone, would hold every request for ever.
 */
export const ANSWER_TIMEOUT_MS = 12_000;
/** A database that restarts is back within seconds; clients should not hammer it meanwhile. */
const RETRY_AFTER_SECONDS = 2;

/** Socket and driver codes of a database that is not there (Node, postgres.js). */
const AWAY_CODES: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "ECONNABORTED",
  "EPIPE",
  "ETIMEDOUT",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "EHOSTDOWN",
  "ENETUNREACH",
  "ENETDOWN",
  "ENOENT",
  "EACCES",
  "CONNECT_TIMEOUT",
  "CONNECTION_CLOSED",
  "CONNECTION_DESTROYED",
  "CONNECTION_ENDED",
]);

/**
 * SQLSTATE classes and codes (PostgreSQL manual, appendix A) of a database that is there but cannot serve now:
 * 08 connection, 28 authorization (a password rotated under us), 3D000 no such database, 40 rollback (deadlock),
 * 53 out of resources (connections, disk, memory), 57 operator intervention (shutdown, statement timeout),
 * 58 system error, 25006 read-only (a fail-over in progress), 55P03 lock not available.
 */
const AWAY_STATES = /^(?:08|28|40|53|57|58)...$|^(?:3D000|25006|55P03)$/;

/** The constraint that a statement violated by inserting what already exists; undefined for any other error. */
export function uniqueViolation(error: unknown): { constraint: string } | undefined {
  const driver = driverError(error);
  if (driver?.code !== "23505") return undefined;
  return { constraint: driver.constraint ?? driver.constraint_name ?? "" };
}

/**
 * The one place that knows what drivers throw. A database that is away becomes `database_unavailable` (503 with
 * Retry-After); anything else is a bug of ours and comes back as an error without the statement's parameters, which
 * hold users' texts and would end up in the log.
 */
export function mapDatabaseError(error: unknown): Error {
  if (error instanceof PreceptorError) return error;
  const driver = driverError(error);
  if (isAway(driver)) {
    return fail(
      "database_unavailable",
      "the database does not answer at the moment; nothing needs to be changed, send the request again shortly",
      { retryAfterSeconds: RETRY_AFTER_SECONDS, cause: driver },
    );
  }
  if (!driver) return new Error(`database: ${String(error)}`);
  const mapped = new Error(`database${driver.code ? ` ${driver.code}` : ""}: ${driver.message}`, { cause: driver });
  return mapped;
}

/** Waits for a query: bounded in time, errors mapped. Every statement outside this directory's start-up goes through it. */
export async function guarded<T>(query: PromiseLike<T>, limitMs = ANSWER_TIMEOUT_MS): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(Object.assign(new Error(`no answer in ${limitMs} ms`), { code: "ETIMEDOUT" })),
      limitMs,
    );
  });
  try {
    return await Promise.race([query, late]);
  } catch (error) {
    throw mapDatabaseError(error);
  } finally {
    clearTimeout(timer);
  }
}

interface DriverError extends Error {
  code?: string;
  /** PGlite's name for it, and postgres.js's. */
  constraint?: string;
  constraint_name?: string;
}

/** Drizzle wraps what the driver threw. */
export function driverError(error: unknown): DriverError | undefined {
  if (!(error instanceof Error)) return undefined;
  const { cause } = error;
  return cause instanceof Error ? driverError(cause) : error;
}

/** Whether the database, not the statement, is what failed. */
export function isAway(driver: DriverError | undefined): boolean {
  if (!driver) return false;
  const { code = "" } = driver;
  return AWAY_CODES.has(code) || AWAY_STATES.test(code) || driver.message === "PGlite is closed";
}
