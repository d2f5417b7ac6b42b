import { access, constants, readFile, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import postgres from "postgres";
import { isRunning, type ProcessIdentity } from "../../db/process-identity.ts";
import { bad, type Finding, ok, warn } from "./check.ts";

/** Creates nothing: a directory that is not there yet is judged by the one it would be created in. */
export async function dataDirectory(directory: string): Promise<Finding> {
  const subject = "data directory";
  const there = await nearestExisting(directory);
  try {
    if (there !== directory) {
      await access(there, constants.W_OK | constants.X_OK);
      return ok(subject, `${directory} will be created`);
    }
    const probe = join(directory, `.doctor-${process.pid}`);
    await writeFile(probe, "");
    await rm(probe);
    return ok(subject, `${directory} can be written`);
  } catch (error) {
    return bad(
      subject,
      `${there} cannot be written (${(error as NodeJS.ErrnoException).code})`,
      "give this user the right to write there, or set PRECEPTOR_DATA_DIR",
    );
  }
}

/** The path itself, or its closest ancestor that exists. */
export async function nearestExisting(path: string): Promise<string> {
  const exists = await stat(path).then(
    () => true,
    () => false,
  );
  return exists || dirname(path) === path ? path : nearestExisting(dirname(path));
}

/** The embedded database belongs to one process; a running server holding it is good news, said as such. */
export async function embeddedDatabase(directory: string): Promise<Finding> {
  const holder = await lockHolder(join(directory, "pglite.lock"));
  if (!holder) return ok("database", `embedded (PGlite) in ${join(directory, "pglite")}, not in use`);
  const running = isRunning(holder);
  if (running) {
    return warn(
      "database",
      `embedded (PGlite), in use by process ${holder.pid}`,
      "a server is running on this data directory; stop it before starting another, or set DATABASE_URL",
    );
  }
  return running === undefined
    ? warn("database", "embedded (PGlite), locked from another container or machine", "stop the server there first")
    : ok("database", `embedded (PGlite); the lock of process ${holder.pid}, which is gone, will be taken over`);
}

async function lockHolder(path: string): Promise<ProcessIdentity | undefined> {
  try {
    return {
      pid: 0,
      started: "",
      world: "",
      ...(JSON.parse(await readFile(path, "utf8")) as Partial<ProcessIdentity>),
    };
  } catch {
    return undefined;
  }
}

/** Seconds; a database that takes longer to accept a connection is as good as away. */
const CONNECT_TIMEOUT_S = 5;

export async function postgresDatabase(url: string): Promise<Finding> {
  const where = URL.canParse(url) ? new URL(url).host || "the local socket" : "an address that is no URL";
  const sql = postgres(url, { max: 1, connect_timeout: CONNECT_TIMEOUT_S, onnotice() {} });
  try {
    const [row] = await sql<{ version: string }[]>`select current_setting('server_version') as version`;
    return ok("database", `PostgreSQL ${row?.version} at ${where}`);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const reason = code === "28P01" ? "wrong password" : code === "3D000" ? "no such database" : (code ?? message);
    return bad("database", `PostgreSQL at ${where}: ${reason}`, "start it, or correct DATABASE_URL");
  } finally {
    await sql.end({ timeout: 1 });
  }
}
