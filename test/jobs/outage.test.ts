import { setTimeout as delay } from "node:timers/promises";
import { sql } from "drizzle-orm";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { type Database, openDatabase } from "../../src/db/database.ts";
import { LeaseLost } from "../../src/jobs/lease.ts";
import { createJobQueue, type JobQueue } from "../../src/jobs/queue.ts";
import type { JobHandler } from "../../src/jobs/run-job.ts";
import { createJobRunner, type JobRunner } from "../../src/jobs/runner.ts";
import { describePostgres, SILENT } from "../db/databases.ts";
import { createProxy, type TcpProxy } from "../db/proxy.ts";
import { allEvents, empty, newJob, outline, take, until } from "./fixtures.ts";

const LEASE_MS = 4_000;

describePostgres("a worker cut off from the database", (url) => {
  let proxy: TcpProxy;
  /** The worker's way to the database, and everybody else's. */
  let own: Database;
  let direct: Database;
  let queue: JobQueue;
  let runner: JobRunner | undefined;
  beforeAll(async () => {
    proxy = await createProxy(url());
    own = await openDatabase({ dataDir: "/nonexistent", databaseUrl: proxy.url });
    direct = await openDatabase({ dataDir: "/nonexistent", databaseUrl: url() });
    queue = createJobQueue(direct.db);
  });
  afterEach(async () => {
    await reconnect();
    await runner?.stop();
    runner = undefined;
    await empty(direct);
  });
  afterAll(async () => {
    await own.close();
    await direct.close();
    await proxy.stop();
  });

  async function run(handler: JobHandler): Promise<void> {
    runner = createJobRunner({
      queue: createJobQueue(own.db),
      handlers: { test: handler },
      workerId: "cut off",
      log: SILENT,
      now: () => performance.now(),
      leaseMs: LEASE_MS,
      heartbeatMs: 200,
      pollMs: 100,
    });
    await queue.insert(newJob("j"));
    await until(async () => (await queue.get("j")).status === "running");
  }
  /** Cuts what is open; connections that never answer are replaced. */
  const reconnect = async (): Promise<void> => {
    await proxy.stop();
    proxy.freeze(false);
    await proxy.start();
    await until(() =>
      own.ping().then(
        () => true,
        () => false,
      ),
    );
  };

  for (const how of ["gone", "frozen"] as const) {
    test(`${how}: stops before another can have its job, and its writes come to nothing`, async () => {
      let aborted = Number.POSITIVE_INFINITY;
      let reason: unknown;
      let refused: { error: unknown; at: number } | undefined;
      await run(async ({ signal, event }) => {
        signal.addEventListener("abort", () => {
          aborted = performance.now();
          reason = signal.reason;
        });
        // Writes all the time, so that one is under way when the database goes.
        for (;;) {
          try {
            await event("job.sample", {});
          } catch (error) {
            refused = { error, at: performance.now() };
            throw error;
          }
          await delay(20);
        }
      });
      const cut = performance.now();
      if (how === "frozen") proxy.freeze(true);
      else await proxy.stop();
      let taken = 0;
      await until(async () => {
        await queue.sweep();
        const job = await queue.claim({ owner: "other", kinds: ["test"], leaseMs: 60_000 });
        taken = performance.now();
        return job !== undefined;
      });
      expect(aborted).toBeLessThan(taken - 100);
      expect(aborted).toBeGreaterThan(cut + LEASE_MS / 2);
      expect(reason).toBeInstanceOf(LeaseLost);
      expect(refused?.error).toBeInstanceOf(LeaseLost);
      expect(refused!.at).toBeLessThan(taken);
      const events = await allEvents(queue, "j");
      await reconnect();
      await delay(300);
      // What was on its way arrives late, if at all, and is refused.
      expect(await allEvents(queue, "j")).toEqual(events);
      expect(await queue.get("j")).toMatchObject({ status: "running", leaseOwner: "other", leaseToken: 2, crashes: 1 });
    }, 60_000);
  }

  test("for less than its lease: writes wait, and the job goes on as if nothing had been", async () => {
    let written = 0;
    await run(async ({ event, signal }) => {
      while (written < 40) {
        signal.throwIfAborted();
        await event("job.sample", {});
        written++;
        await delay(20);
      }
      return { outcome: "succeeded" };
    });
    await until(() => written > 3);
    await proxy.stop();
    await delay(700);
    const during = written;
    await delay(300);
    expect(written).toBe(during);
    await proxy.start();
    await until(async () => (await queue.get("j")).status === "succeeded");
    expect(await queue.get("j")).toMatchObject({ attempts: 1, crashes: 0, leaseToken: 1 });
    const samples = outline(await allEvents(queue, "j")).filter((line) => line === "job.sample").length;
    // One whose answer was lost may stand there twice.
    expect(samples - 40).toBeGreaterThanOrEqual(0);
    expect(samples - 40).toBeLessThanOrEqual(1);
  }, 60_000);

  test("sessions that the administrator ends cost nothing", async () => {
    let go = true;
    let written = 0;
    await run(async ({ event }) => {
      while (go) {
        await event("job.sample", {});
        written++;
      }
      return { outcome: "succeeded" };
    });
    for (let round = 0; round < 3; round++) {
      const before = written;
      await until(() => written > before + 10);
      await direct.db.execute(
        sql`select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and pid <> pg_backend_pid() and application_name = 'preceptor'`,
      );
      await until(() =>
        direct.ping().then(
          () => true,
          () => false,
        ),
      );
    }
    go = false;
    await until(() =>
      queue.get("j").then(
        (job) => job.status === "succeeded",
        () => false,
      ),
    );
    expect(await queue.get("j")).toMatchObject({ attempts: 1, crashes: 0 });
  }, 60_000);

  test("an end that cannot be written down in time is done again by the next worker", async () => {
    let runs = 0;
    await run(async () => {
      if (++runs === 1) await proxy.stop();
      return { outcome: "succeeded", result: runs };
    });
    await until(() => runs === 1);
    await delay(LEASE_MS);
    await proxy.start();
    await until(() =>
      queue.get("j").then(
        (job) => job.status === "succeeded",
        () => false,
      ),
    );
    expect(await queue.get("j")).toMatchObject({ result: 2, attempts: 2 });
  }, 60_000);

  test("who follows hears that the database is away, and goes on after the last event", async () => {
    await queue.insert(newJob("f"));
    const { lease } = await take(queue);
    const seen: number[] = [];
    const far = createJobQueue(own.db);
    const watch = async (after: number): Promise<void> => {
      const events = far.follow("f", { after, signal: new AbortController().signal, pollMs: 50 });
      for await (const event of events) seen.push(event.seq);
    };
    const watching = watch(0).catch((error: unknown) => error);
    await until(() => seen.length === 2);
    await proxy.stop();
    expect(await watching).toMatchObject({ code: "database_unavailable" });
    await queue.append(lease, [{ type: "job.sample", data: {} }]);
    await queue.finish(lease, { outcome: "succeeded" });
    await proxy.start();
    await until(() =>
      own.ping().then(
        () => true,
        () => false,
      ),
    );
    await watch(seen.at(-1)!);
    expect(seen).toEqual([1, 2, 3, 4]);
  }, 60_000);
});
