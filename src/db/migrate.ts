import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { sql } from "drizzle-orm";
import { fail } from "../errors.ts";
import type { Db } from "./database.ts";

/** The package's migrations: src/db and dist/db lie equally deep. */
export const MIGRATIONS_FOLDER = fileURLToPath(new URL("../../migrations", import.meta.url));

/**
 * Refuses a database that a newer version of the program has migrated: this one would misread its tables.
 * Drizzle's migrators note in `drizzle.__drizzle_migrations` the journal's `when` (ms) of everything they applied.
 */
export async function refuseNewerDatabase(db: Db): Promise<void> {
  const [applied] = await db
    .select({ newest: sql<string | number | null>`max(created_at)` })
    .from(sql`drizzle.__drizzle_migrations`);
  if (Number(applied?.newest ?? 0) <= (await newestKnown())) return;
  throw fail(
    "database_unavailable",
    "this database was used by a newer version of Preceptor; start that version, or another database or data directory",
  );
}

async function newestKnown(): Promise<number> {
  const journal = JSON.parse(await readFile(`${MIGRATIONS_FOLDER}/meta/_journal.json`, "utf8")) as {
    entries: { when: number }[];
  };
  return Math.max(...journal.entries.map((entry) => entry.when));
}
