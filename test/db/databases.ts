import { createHash, randomUUID } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { PGlite } from "@electric-sql/pglite";
import postgres from "postgres";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Database } from "../../src/db/database.ts";
import { MIGRATIONS_FOLDER } from "../../src/db/migrate.ts";
import { fromPglite } from "../../src/db/pglite.ts";
import { openPostgres } from "../../src/db/postgres.ts";

export const SILENT = { debug() {}, info() {}, warn() {}, error() {} };

const ADMIN_URL = process.env.DATABASE_TEST_URL ?? "postgres://postgres@127.0.0.1:5432/postgres";
const REQUIRED = process.env.REQUIRE_POSTGRES === "1";

/** Runs a suite on both databases; `database()` is the opened one. */
export function describeDatabases(name: string, suite: (use: { database(): Database }) => void): void {
  describe(`${name} (PGlite)`, () => {
    let opened: Database;
    beforeAll(async () => {
      opened = await openTestDatabase();
    });
    afterAll(() => opened?.close());
    suite({ database: () => opened });
  });
  describePostgres(name, (url) => {
    let opened: Database;
    beforeAll(async () => {
      opened = await openPostgres(url(), SILENT);
    });
    afterAll(() => opened?.close());
    suite({ database: () => opened });
  });
}

/** Runs a suite on an empty PostgreSQL database of its own, or skips it by name where there is no server. */
export function describePostgres(name: string, suite: (url: () => string) => void): void {
  describe(`${name} (PostgreSQL)`, async () => {
    if (!(await postgresReachable())) {
      if (REQUIRED) test("PostgreSQL is required", () => expect.fail(`no PostgreSQL at ${withoutPassword(ADMIN_URL)}`));
      else test.skip("PostgreSQL: not reachable, skipped", () => undefined);
      return;
    }
    const database = `preceptor_test_${randomUUID().replaceAll("-", "")}`;
    const url = new URL(ADMIN_URL);
    url.pathname = `/${database}`;
    beforeAll(() => admin(`create database ${database}`));
    afterAll(() => admin(`drop database if exists ${database} with (force)`));
    suite(() => url.href);
  });
}

/** A migrated PGlite in memory: 0.5 s from a template, against 3 s from nothing. */
export async function openTestDatabase(): Promise<Database> {
  return fromPglite(await PGlite.create({ loadDataDir: new Blob([readFileSync(await template())]) }), SILENT);
}

/** The dump of a migrated, empty PGlite, made once per state of the migrations and version of PGlite. */
async function template(): Promise<string> {
  const hash = createHash("sha256").update(createRequire(import.meta.url).resolve("@electric-sql/pglite"));
  hash.update(readFileSync(fileURLToPath(new URL("../../package-lock.json", import.meta.url))));
  for (const file of readdirSync(MIGRATIONS_FOLDER, { recursive: true, encoding: "utf8" }).sort()) {
    if (/\.(?:sql|json)$/.test(file)) hash.update(readFileSync(join(MIGRATIONS_FOLDER, file)));
  }
  const folder = fileURLToPath(new URL("../../node_modules/.cache/preceptor/", import.meta.url));
  const path = join(folder, `pglite-${hash.digest("hex").slice(0, 16)}.tar`);
  if (existsSync(path)) return path;
  const client = await PGlite.create();
  const database = await fromPglite(client, SILENT);
  const dump = await client.dumpDataDir("none");
  await database.close();
  mkdirSync(folder, { recursive: true });
  // Another test process may do the same: whoever renames last wins, and nobody reads half a file.
  const aside = `${path}.${randomUUID()}`;
  writeFileSync(aside, Buffer.from(await dump.arrayBuffer()));
  renameSync(aside, path);
  return path;
}

async function postgresReachable(): Promise<boolean> {
  try {
    await admin("select 1");
    return true;
  } catch {
    return false;
  }
}

async function admin(statement: string): Promise<void> {
  const client = postgres(ADMIN_URL, { max: 1, connect_timeout: 2, fetch_types: false, onnotice: () => undefined });
  try {
    await client.unsafe(statement);
  } finally {
    await client.end({ timeout: 2 });
  }
}

function withoutPassword(url: string): string {
  const { host, pathname } = new URL(url);
  return host + pathname;
}
