/**
 * Creating an embedded database takes seconds, and dozens of tests start a whole server: the first one that does leaves its
 * empty database for the others to copy. As vitest's global setup this file makes and removes the place for it.
 */
import { existsSync } from "node:fs";
import { cp, mkdtemp, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { pino } from "pino";
import { openDatabase } from "../src/db/database.ts";

/** Inherited by vitest's workers and by the servers that tests start. */
const PLACE = "PRECEPTOR_TEST_TEMPLATE";

export async function setup(): Promise<() => Promise<void>> {
  const place = await mkdtemp(path.join(tmpdir(), "preceptor-template-"));
  process.env[PLACE] = place;
  return () => rm(place, { recursive: true, force: true });
}

/** Puts an empty database into a data directory that has none. */
export async function giveDatabase(dataDir: string): Promise<void> {
  const place = process.env[PLACE];
  const target = path.join(dataDir, "pglite");
  if (place === undefined || existsSync(target)) return;
  const template = path.join(place, "pglite");
  if (!existsSync(template)) {
    const fresh = await mkdtemp(path.join(place, "new-"));
    const database = await openDatabase({ dataDir: fresh, databaseUrl: undefined, log: pino({ level: "silent" }) });
    await database.close();
    // Whoever comes second finds the first one's there.
    await rename(path.join(fresh, "pglite"), template).catch(() => undefined);
    await rm(fresh, { recursive: true, force: true });
  }
  await cp(template, target, { recursive: true });
}
