import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PGlite } from "@electric-sql/pglite";
import { afterEach, expect, test } from "vitest";
import { openDatabase } from "../../src/db/database.ts";
import { createExplanationStore } from "../../src/db/explanation-store.ts";
import { maintain } from "../../src/db/pglite.ts";
import { startChild } from "./child.ts";

const folders: string[] = [];
const newFolder = (): string => {
  const folder = mkdtempSync(join(tmpdir(), "preceptor-db-"));
  folders.push(folder);
  return folder;
};
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

test("a second process is refused with the first one's pid, and let in when that one closes", async () => {
  const dataDir = newFolder();
  const first = startChild("open.ts", [dataDir]);
  await first.line((line) => line === "open");
  const refusal = await openDatabase({ dataDir }).catch((error: unknown) => error);
  expect(refusal).toMatchObject({ code: "data_dir_locked", status: 503 });
  expect(String(refusal)).toContain(`process ${first.process.pid}`);
  expect(String(refusal)).toContain("DATABASE_URL");
  first.process.stdin.end();
  await first.line((line) => line === "closed");
  expect(existsSync(join(dataDir, "pglite.lock"))).toBe(false);
  const database = await openDatabase({ dataDir });
  await database.ping();
  await expect(openDatabase({ dataDir })).rejects.toMatchObject({
    code: "data_dir_locked",
    message: expect.stringContaining(`this process (pid ${process.pid})`),
  });
  await database.close();
  await database.close();
  await expect(database.ping()).rejects.toMatchObject({ code: "database_unavailable" });
  await first.exited;
}, 60_000);

test("SIGKILL in the middle of writing loses no acknowledged row, and the next start takes over", async () => {
  const dataDir = newFolder();
  const acknowledged: string[] = [];
  for (let round = 0; round < 3; round++) {
    const writer = startChild("writer.ts", [dataDir]);
    await writer.line((line) => line === "open");
    await new Promise((resolve) => setTimeout(resolve, 200 + 150 * round));
    writer.process.kill("SIGKILL");
    await once(writer.process, "exit");
    await writer.exited;
    acknowledged.push(...writer.lines.slice(1));
  }
  expect(acknowledged.length).toBeGreaterThan(20);
  const database = await openDatabase({ dataDir });
  const store = createExplanationStore(database.db);
  const present = new Set<string>();
  for (let after: string | undefined; ; ) {
    const { rows, hasMore } = await store.list({ limit: 100, order: "asc", after });
    for (const row of rows) present.add(row.id);
    if (!hasMore) break;
    after = rows.at(-1)?.id;
  }
  expect(acknowledged.filter((id) => !present.has(id))).toEqual([]);
  await database.close();
}, 120_000);

test("a data directory that cannot be one, and a folder that is no database, are explained", async () => {
  const folder = newFolder();
  writeFileSync(join(folder, "file"), "");
  const notDirectory = openDatabase({ dataDir: join(folder, "file") });
  await expect(notDirectory).rejects.toMatchObject({ code: "database_unavailable" });
  await expect(notDirectory).rejects.toThrow(/cannot be used .*PRECEPTOR_DATA_DIR/);

  writeFileSync(join(folder, "pglite"), "not a folder");
  const noDatabase = openDatabase({ dataDir: folder });
  await expect(noDatabase).rejects.toMatchObject({ code: "database_unavailable" });
  await expect(noDatabase).rejects.toThrow(/did not open .*backup/);
  expect(existsSync(join(folder, "pglite.lock"))).toBe(false);
});

test("maintenance vacuums and analyses", async () => {
  const client = await PGlite.create();
  await client.exec("create table t (n int); insert into t select generate_series(1, 100); delete from t where n > 5");
  await maintain(client);
  const { rows } = await client.query("select reltuples::int as live from pg_class where relname = 't'");
  expect(rows).toEqual([{ live: 5 }]);
  await client.close();
});
