import { createServer } from "node:net";
import { sql } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Database, openDatabase } from "../../src/db/database.ts";
import { createModelStore } from "../../src/db/model-store.ts";
import { models } from "../../src/db/schema/models.ts";
import { startChild } from "./child.ts";
import { describePostgres } from "./databases.ts";
import { createProxy, type TcpProxy } from "./proxy.ts";

const away = { code: "database_unavailable", status: 503, retryAfterSeconds: 2 };
const open = (databaseUrl: string): Promise<Database> => openDatabase({ dataDir: "/nonexistent", databaseUrl });

describePostgres("starting", (url) => {
  test("four servers that start at once on an empty database all come up", async () => {
    const servers = [1, 2, 3, 4].map(() => startChild("open.ts", ["/nonexistent", url()]));
    await Promise.all(servers.map((server) => server.line((line) => line === "open")));
    for (const server of servers) server.process.stdin.end();
    await Promise.all(servers.map((server) => server.line((line) => line === "closed")));
    const database = await open(url());
    expect(await database.db.select().from(models)).toEqual([]);
    await database.close();
  }, 60_000);

  test("a database of a newer version is refused", async () => {
    const database = await open(url());
    const future = Date.UTC(2100, 0, 1);
    await database.db.execute(
      sql`insert into drizzle.__drizzle_migrations (hash, created_at) values ('future', ${future}::bigint)`,
    );
    await expect(open(url())).rejects.toThrow(/newer version of Preceptor/);
    await database.db.execute(sql`delete from drizzle.__drizzle_migrations where hash = 'future'`);
    await database.close();
    await (await open(url())).close();
  });
});

describePostgres("away and back", (url) => {
  let proxy: TcpProxy;
  let database: Database;
  beforeAll(async () => {
    proxy = await createProxy(url());
    database = await open(proxy.url);
  });
  afterAll(async () => {
    await database.close();
    await proxy.stop();
  });

  const query = () => createModelStore(database.db).list({ limit: 1, order: "asc" });
  const many = (n: number) => Promise.allSettled(Array.from({ length: n }, query));
  const failures = (results: PromiseSettledResult<unknown>[]) =>
    results.flatMap((result) => (result.status === "rejected" ? [result.reason] : []));

  test("queries fail with 503 while it is away and work again afterwards", async () => {
    expect(failures(await many(30))).toEqual([]);
    const sleeping = database.db.execute(sql`select pg_sleep(5)`).then(
      () => "done",
      () => "cut",
    );
    await new Promise((resolve) => setTimeout(resolve, 100));
    await proxy.stop();
    expect(await sleeping).toBe("cut");
    for (let round = 0; round < 3; round++) {
      const failed = failures(await many(30));
      expect(failed).toHaveLength(30);
      for (const reason of failed) expect(reason).toMatchObject(away);
    }
    await expect(database.ping()).rejects.toMatchObject(away);
    await proxy.start();
    await expect.poll(() => database.ping().then(() => "back", String), { timeout: 5_000 }).toBe("back");
    expect(failures(await many(30))).toEqual([]);
  }, 60_000);

  test("a transaction that is cut is rolled back", async () => {
    const store = createModelStore(database.db);
    const interrupted = database.db.transaction(async (tx) => {
      await tx.insert(models).values({
        id: "half",
        version: 1,
        firstVersion: 1,
        metadata: {},
        createdAt: new Date(),
        updatedAt: new Date(),
      });
      await proxy.stop();
      await tx.select().from(models);
    });
    await expect(interrupted).rejects.toThrow();
    await proxy.start();
    await expect.poll(() => database.ping().then(() => "back", String), { timeout: 5_000 }).toBe("back");
    expect(await store.find("half", { includeDeleted: true })).toBeUndefined();
    expect(await database.db.select().from(models)).toEqual([]);
  }, 60_000);

  test("a server that falls silent costs seconds, not for ever", async () => {
    proxy.freeze(true);
    const begin = Date.now();
    await expect(database.ping()).rejects.toMatchObject(away);
    expect(Date.now() - begin).toBeLessThan(4_000);
    for (const reason of failures(await many(15))) expect(reason).toMatchObject(away);
    expect(Date.now() - begin).toBeLessThan(20_000);
    // It never answers on the old connections; new ones reach it.
    await proxy.stop();
    proxy.freeze(false);
    await proxy.start();
    await expect.poll(() => database.ping().then(() => "back", String), { timeout: 10_000 }).toBe("back");
  }, 60_000);

  test("a session that the administrator ends is replaced", async () => {
    const ended = database.db.execute(sql`select pg_sleep(5)`).catch((error: unknown) => error);
    await new Promise((resolve) => setTimeout(resolve, 100));
    await database.db.execute(
      sql`select pg_terminate_backend(pid) from pg_stat_activity
          where datname = current_database() and pid <> pg_backend_pid() and application_name = 'preceptor'`,
    );
    expect(await ended).toBeInstanceOf(Error);
    // Idle sessions were ended too, without having heard of it yet: each may fail once, none may hang.
    const begin = Date.now();
    await many(20);
    await many(20);
    expect(failures(await many(20))).toEqual([]);
    expect(Date.now() - begin).toBeLessThan(3_000);
  }, 60_000);

  test("something that accepts and closes at once is away, not an endless loop", async () => {
    await proxy.stop();
    let accepted = 0;
    const closer = createServer((socket) => {
      accepted++;
      socket.destroy();
    });
    await new Promise<void>((resolve) => closer.listen(Number(new URL(proxy.url).port), "127.0.0.1", resolve));
    for (const reason of failures(await many(5))) expect(reason).toMatchObject(away);
    expect(failures(await many(5))).toHaveLength(5);
    const before = accepted;
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(accepted).toBe(before);
    expect(accepted).toBeLessThanOrEqual(10);
    await new Promise((resolve) => closer.close(resolve));
    await proxy.start();
    await database.ping();
    expect(failures(await many(30))).toEqual([]);
  }, 60_000);

  test("more transactions than connections take turns; nested ones roll back alone", async () => {
    const row = (id: string) => ({
      id,
      version: 1,
      firstVersion: 1,
      metadata: {},
      createdAt: new Date(),
      updatedAt: new Date(),
    });
    await Promise.all(
      Array.from({ length: 25 }, (_, n) =>
        database.db.transaction(async (tx) => {
          await tx.insert(models).values(row(`outer-${n}`));
          const inner = tx.transaction(async (nested) => {
            await nested.insert(models).values(row(`inner-${n}`));
            throw new Error("undo");
          });
          await expect(inner).rejects.toThrow("undo");
        }),
      ),
    );
    const ids = (await database.db.select({ id: models.id }).from(models)).map(({ id }) => id);
    expect(ids.filter((id) => id.startsWith("outer-"))).toHaveLength(25);
    expect(ids.filter((id) => id.startsWith("inner-"))).toEqual([]);
    const failing = database.db.transaction(async (tx) => {
      await tx.insert(models).values(row("undone"));
      await tx.insert(models).values(row("undone"));
    });
    await expect(failing).rejects.toThrow();
    expect(await createModelStore(database.db).find("undone")).toBeUndefined();
    const swallowing = database.db.transaction(async (tx) => {
      await tx.insert(models).values(row("swallowed"));
      await tx
        .insert(models)
        .values(row("swallowed"))
        .catch(() => undefined);
    });
    await expect(swallowing).rejects.toThrow(/rolled back/);
    let escaped: typeof database.db | undefined;
    await database.db.transaction(async (tx) => {
      escaped = tx;
    });
    await expect(escaped?.select().from(models)).rejects.toThrow();
  }, 60_000);
});

test("a server that is not there, or is none, is named without the password", async () => {
  const refused = await open("postgres://me:hunter2@127.0.0.1:9/app").catch((error: unknown) => error);
  expect(refused).toMatchObject({ code: "database_unavailable" });
  expect(String(refused)).toContain("PostgreSQL at 127.0.0.1:9/app");
  expect(String(refused)).not.toContain("hunter2");

  const mute = createServer(() => undefined);
  await new Promise<void>((resolve) => mute.listen(0, "127.0.0.1", resolve));
  const { port } = mute.address() as { port: number };
  const begin = Date.now();
  await expect(open(`postgres://me:hunter2@127.0.0.1:${port}/app`)).rejects.toMatchObject({
    code: "database_unavailable",
    message: expect.not.stringContaining("hunter2"),
  });
  expect(Date.now() - begin).toBeLessThan(12_000);
  mute.close();

  for (const url of ["mysql://me:hunter2@host/db", "not a url hunter2"]) {
    const invalid = await open(url).catch((error: unknown) => error);
    expect(invalid).toMatchObject({ code: "invalid_value", param: "DATABASE_URL" });
    expect(String(invalid)).not.toContain("hunter2");
  }
}, 40_000);
