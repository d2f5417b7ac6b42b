import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openDatabase } from "../../src/db/database.ts";
import { createJobQueue, type JobQueue } from "../../src/jobs/queue.ts";
import { type Child, startChild } from "../db/child.ts";
import { describePostgres } from "../db/databases.ts";
import { allEvents, newJob, outline, until } from "./fixtures.ts";

/** A worker that a busy machine keeps waiting for two seconds must not lose its job to that. */
const LEASE_MS = 3_000;
const HEARTBEAT_MS = 300;
/** What a busy machine of two cores adds to anything. */
const SLACK_MS = 3_000;
const STEPS = 40;

const startWorker = async (dataDir: string, url = ""): Promise<Child> => {
  const child = startChild("../../jobs/children/work.ts", [dataDir, url, String(LEASE_MS), String(HEARTBEAT_MS)]);
  await child.line((line) => line === "ready");
  return child;
};
const stepsOf = (child: Child): number[] =>
  child.lines.flatMap((line) => (line.startsWith("step ") ? [Number(line.slice(5))] : []));
const kill = async (child: Child): Promise<void> => {
  child.process.kill("SIGKILL");
  await child.exited;
};
const end = async (child: Child): Promise<void> => {
  child.process.stdin.end();
  await child.line((line) => line === "closed");
};

/** Whatever happened, the trail is whole: no gap in the events, one value per step, as if nothing had been. */
async function expectWholeTrail(queue: JobQueue, kills: number): Promise<void> {
  const events = await allEvents(queue, "j");
  expect(events.map((event) => event.seq)).toEqual(events.map((_, n) => n + 1));
  expect(outline(events).filter((line) => line === "job.warning worker_lost")).toHaveLength(kills);
  expect(events.at(-1)?.type).toBe("job.completed");
  const { value } = await queue.metrics("j");
  expect(value).toEqual(Array.from({ length: STEPS }, (_, n) => ({ step: n + 1, value: (n + 1) ** 2 })));
}

describePostgres("a worker that is killed", (url) => {
  test("loses its job to another worker within the lease, which goes on from the last checkpoint", async () => {
    const database = await openDatabase({ dataDir: "/nonexistent", databaseUrl: url() });
    const queue = createJobQueue(database.db);
    const workers = await Promise.all([1, 2, 3].map(() => startWorker("/nonexistent", url())));
    await queue.insert(newJob("j", { kind: "count", config: { steps: STEPS } }));
    for (const killedAt of [7, 18]) {
      await until(async () => ((await queue.get("j")).attemptStep ?? 0) >= killedAt);
      const { attempts: before, leaseOwner } = await queue.get("j");
      const busy = workers.findIndex((child) => leaseOwner === `process ${child.process.pid}`);
      await kill(workers[busy]!);
      const died = performance.now();
      await until(async () => (await queue.get("j")).attempts > before);
      expect(performance.now() - died).toBeLessThan(LEASE_MS + SLACK_MS);
      workers.splice(busy, 1);
      await until(() => workers.some((heir) => stepsOf(heir).length > 0));
      const heir = workers.find((child) => stepsOf(child).length > 0)!;
      expect(stepsOf(heir)[0]! % 5).toBe(1);
    }
    await until(async () => (await queue.get("j")).status === "succeeded");
    expect(await queue.get("j")).toMatchObject({ attempts: 3, crashes: 1 });
    await expectWholeTrail(queue, 2);
    await Promise.all(workers.map(end));
    await database.close();
  }, 60_000);

  test("a worker that ends in good order gives its job back at once", async () => {
    const database = await openDatabase({ dataDir: "/nonexistent", databaseUrl: url() });
    const queue = createJobQueue(database.db);
    await queue.insert(newJob("k", { kind: "count", config: { steps: 1_000 } }));
    const worker = await startWorker("/nonexistent", url());
    await until(() => stepsOf(worker).length > 2);
    await end(worker);
    expect(await queue.get("k")).toMatchObject({ status: "queued", crashes: 0, error: null });
    await queue.cancel("k");
    await database.close();
  }, 60_000);
});

test("with the embedded database the next start takes the job up at once, killed as often as it may be", async () => {
  const dataDir = mkdtempSync(join(tmpdir(), "preceptor-jobs-"));
  const open = async <T>(use: (queue: JobQueue) => Promise<T>): Promise<T> => {
    const database = await openDatabase({ dataDir });
    try {
      return await use(createJobQueue(database.db));
    } finally {
      await database.close();
    }
  };
  await open((queue) => queue.insert(newJob("j", { kind: "count", config: { steps: STEPS } })));
  for (const killedAt of [3, 12, 23, 31]) {
    const worker = await startWorker(dataDir);
    await worker.line((line) => line === `step ${killedAt}`);
    await kill(worker);
  }
  const last = await startWorker(dataDir);
  await last.line((line) => line === `step ${STEPS}`);
  await end(last);
  await open(async (queue) => {
    expect(await queue.get("j")).toMatchObject({ status: "succeeded", attempts: 5, crashes: 1 });
    await expectWholeTrail(queue, 4);
  });
  rmSync(dataDir, { recursive: true, force: true });
}, 90_000);
