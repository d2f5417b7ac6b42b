import { setTimeout as delay } from "node:timers/promises";
import { afterEach, beforeAll, expect, test } from "vitest";
import { fail } from "../../src/errors.ts";
import type { JobContext } from "../../src/jobs/context.ts";
import { LeaseLost } from "../../src/jobs/lease.ts";
import { createJobQueue, type JobQueue } from "../../src/jobs/queue.ts";
import type { JobHandler, RunnerLog } from "../../src/jobs/run-job.ts";
import { createJobRunner, type JobRunner, type RunnerDeps } from "../../src/jobs/runner.ts";
import { describeDatabases } from "../db/databases.ts";
import { allEvents, empty, newCheckpoint, newJob, outline, SHORT_LEASE_MS, until } from "./fixtures.ts";

describeDatabases("runner", ({ database }) => {
  let queue: JobQueue;
  const started: JobRunner[] = [];
  const logged: { level: string; details: object; message: string }[] = [];
  const note =
    (level: string) =>
    (details: object, message: string): void =>
      void logged.push({ level, details, message });
  const log: RunnerLog = { debug: note("debug"), info: note("info"), warn: note("warn"), error: note("error") };

  beforeAll(() => {
    queue = createJobQueue(database().db);
  });
  afterEach(async () => {
    await Promise.all(started.splice(0).map((runner) => runner.stop()));
    logged.length = 0;
    await empty(database());
  });

  function run(handler: JobHandler, more: Partial<RunnerDeps> = {}): JobRunner {
    const runner = createJobRunner({
      queue,
      handlers: { test: handler },
      workerId: "me",
      log,
      now: () => performance.now(),
      leaseMs: SHORT_LEASE_MS,
      heartbeatMs: 100,
      pollMs: 50,
      stopGraceMs: 2_000,
      ...more,
    });
    started.push(runner);
    return runner;
  }
  const status = async (id = "j") => (await queue.get(id)).status;
  const becomes = (wanted: string, id = "j") => until(async () => (await status(id)) === wanted);
  /** Works until it is stopped, as a training loop does. */
  const loop: JobHandler = async ({ signal, wanted }) => {
    for (;;) {
      signal.throwIfAborted();
      if (wanted() === "pause") return { outcome: "paused" };
      if (wanted() === "cancel") return { outcome: "cancelled" };
      await delay(10);
    }
  };

  test("runs what is ordered, with everything it writes", async () => {
    run(async ({ job, event, metrics, progress, checkpoint }) => {
      await progress({ step: 1, total_steps: 1 });
      await metrics(1, { loss: 0.5 });
      await event("job.sample", { seed: job.seed });
      await checkpoint(newCheckpoint("ckpt_1", 1));
      return { outcome: "succeeded", result: { checkpoint: "ckpt_1" } };
    });
    await queue.insert(newJob("j"));
    await becomes("succeeded");
    expect(await queue.get("j")).toMatchObject({
      progress: { step: 1, total_steps: 1 },
      metrics: { loss: 0.5 },
      result: { checkpoint: "ckpt_1" },
      attempts: 1,
      leaseOwner: null,
    });
    expect((await allEvents(queue, "j")).map((event) => event.type)).toEqual([
      "job.status",
      "job.status",
      "job.metrics",
      "job.sample",
      "job.checkpoint",
      "job.completed",
    ]);
  });

  test("an order of this process begins at once, one of another within the time of a look", async () => {
    run(async () => ({ outcome: "succeeded" }), { pollMs: 60_000 });
    await delay(100);
    await queue.insert(newJob("j"));
    await becomes("succeeded");
    run(async () => ({ outcome: "succeeded" }), { handlers: { far: async () => ({ outcome: "succeeded" }) } });
    await createJobQueue(database().db).insert(newJob("k", { kind: "far" }));
    await becomes("succeeded", "k");
  });

  test("one job at a time by default, as many as allowed otherwise; the next begins when one ends", async () => {
    let now = 0;
    let most = 0;
    const counting: JobHandler = async () => {
      most = Math.max(most, ++now);
      await delay(60);
      now--;
      return { outcome: "succeeded" };
    };
    const ids = Array.from({ length: 6 }, (_, n) => `j${n}`);
    for (const id of ids) await queue.insert(newJob(id));
    const one = run(counting, { pollMs: 60_000 });
    for (const id of ids) await becomes("succeeded", id);
    expect(most).toBe(1);
    await one.stop();
    for (const id of ids) await queue.insert(newJob(`${id}-again`));
    const three = run(counting, { concurrency: 3 });
    for (const id of ids) await becomes("succeeded", `${id}-again`);
    expect(most).toBe(3);
    expect(three.running()).toEqual([]);
  });

  test("a job much longer than its lease is kept by heartbeats; no other worker gets it", async () => {
    let runs = 0;
    const long: JobHandler = async () => {
      runs++;
      await delay(2 * SHORT_LEASE_MS);
      return { outcome: "succeeded" };
    };
    run(long);
    run(long, { workerId: "other" });
    await queue.insert(newJob("j"));
    await becomes("succeeded");
    expect(runs).toBe(1);
    expect((await queue.get("j")).leaseToken).toBe(1);
  });

  for (const [verb, after] of [
    ["pause", "paused"],
    ["cancel", "cancelled"],
  ] as const) {
    test(`${verb} reaches the handler at once here, with a heartbeat from elsewhere`, async () => {
      run(loop, { heartbeatMs: 400 });
      for (const from of [queue, createJobQueue(database().db)]) {
        const id = from === queue ? "near" : "far";
        await queue.insert(newJob(id));
        await becomes("running", id);
        await from[verb](id);
        await becomes(after, id);
      }
    });
  }

  test("a write tells what is wanted, too", async () => {
    let before: string | null = "?";
    run(
      async ({ wanted, progress }) => {
        await createJobQueue(database().db).pause("j");
        before = wanted();
        await progress({ step: 1 });
        return { outcome: wanted() === "pause" ? "paused" : "succeeded" };
      },
      { heartbeatMs: 1_000 },
    );
    await queue.insert(newJob("j"));
    await becomes("paused");
    expect(before).toBeNull();
  });

  test("a known error fails the job with it; an unknown one tells only the log", async () => {
    run(async ({ job }) => {
      if (job.id === "known") throw fail("out_of_memory", "a smaller batch fits");
      throw new Error("secret path /etc");
    });
    await queue.insert(newJob("known"));
    await queue.insert(newJob("unknown"));
    await becomes("failed", "known");
    await becomes("failed", "unknown");
    expect((await queue.get("known")).error).toMatchObject({ code: "out_of_memory", message: "a smaller batch fits" });
    const { error } = await queue.get("unknown");
    expect(error?.code).toBe("internal_error");
    expect(JSON.stringify([error, await allEvents(queue, "unknown")])).not.toContain("secret");
    expect(
      logged.filter(({ level }) => level === "error").map(({ details }) => String((details as { err: unknown }).err)),
    ).toEqual(["Error: secret path /etc"]);
  });

  test("a result that cannot be kept fails the job instead of running it again", async () => {
    run(async () => ({ outcome: "succeeded", result: { big: 1n } }));
    await queue.insert(newJob("j"));
    await becomes("failed");
    expect(await queue.get("j")).toMatchObject({ error: { code: "internal_error" }, attempts: 1 });
  });

  test("a database that was away for one of the handler's own queries is no failure of the job", async () => {
    let runs = 0;
    run(async () => {
      if (++runs === 1) throw fail("database_unavailable", "away");
      return { outcome: "succeeded" };
    });
    await queue.insert(newJob("j"));
    await becomes("succeeded");
    expect(outline(await allEvents(queue, "j"))).toContain("job.warning interrupted");
  });

  test("stopping gives the job back, not failed and not counted, and another worker goes on", async () => {
    const first = run(loop);
    await queue.insert(newJob("j"));
    await until(() => first.running().length === 1);
    await first.stop();
    expect(await queue.get("j")).toMatchObject({ status: "queued", crashes: 0, attempts: 1, error: null });
    await delay(150);
    expect(await status()).toBe("queued");
    run(async ({ job }) => ({ outcome: "succeeded", result: job.attempts }));
    await becomes("succeeded");
    expect((await queue.get("j")).result).toBe(2);
  });

  test("a handler may write its last checkpoint while the server ends; what is done by then is done", async () => {
    const first = run(
      async ({ signal, checkpoint, job }) => {
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
        await checkpoint(newCheckpoint(`ckpt_${job.id}`, 1));
        if (job.id === "done") return { outcome: "succeeded" };
        throw signal.reason;
      },
      { concurrency: 2 },
    );
    await queue.insert(newJob("done"));
    await queue.insert(newJob("undone"));
    await until(() => first.running().length === 2);
    await first.stop();
    expect(await status("done")).toBe("succeeded");
    expect(await status("undone")).toBe("queued");
    expect(await queue.lastCheckpoint("undone")).toMatchObject({ id: "ckpt_undone" });
  });

  test("a handler that does not stop is left behind after the grace; what it writes later is refused", async () => {
    let late: unknown;
    let context: JobContext | undefined;
    const deaf = run(
      async (given) => {
        context = given;
        await delay(600);
        late = await given.event("job.sample", {}).catch((error: unknown) => error);
        return { outcome: "succeeded" };
      },
      { stopGraceMs: 100 },
    );
    await queue.insert(newJob("j"));
    await until(() => context !== undefined);
    await deaf.stop();
    expect(await status()).toBe("queued");
    await until(() => late !== undefined);
    expect(late).toBeInstanceOf(LeaseLost);
    await delay(50);
    expect(outline(await allEvents(queue, "j"))).toEqual([
      "job.status queued",
      "job.status running",
      "job.status queued",
    ]);
  });

  test("a job taken away: the signal aborts with LeaseLost, writes throw it, and the other's work stands", async () => {
    let reason: unknown;
    let refused: unknown;
    const stolen = run(async ({ signal, event }) => {
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      reason = signal.reason;
      refused = await event("job.sample", {}).catch((error: unknown) => error);
      return { outcome: "succeeded", result: "thief's victim" };
    });
    await queue.insert(newJob("j"));
    await until(() => stolen.running().length === 1);
    // As if this process had slept through its lease.
    await queue.sweep({ exclusive: true });
    const other = await queue.claim({ owner: "other", kinds: ["test"], leaseMs: 60_000 });
    await until(() => refused !== undefined);
    expect(reason).toBeInstanceOf(LeaseLost);
    expect(refused).toBeInstanceOf(LeaseLost);
    await until(() => stolen.running().length === 0);
    expect(other).toMatchObject({ leaseToken: 2 });
    expect(await queue.get("j")).toMatchObject({ status: "running", leaseOwner: "other", result: null });
  });

  test("at the start, who is alone takes up what a worker before him left", async () => {
    await queue.insert(newJob("j"));
    await queue.claim({ owner: "dead", kinds: ["test"], leaseMs: 600_000 });
    run(async () => ({ outcome: "succeeded" }), { exclusive: true });
    await becomes("succeeded");
    expect(outline(await allEvents(queue, "j"))).toContain("job.warning worker_lost");
  });

  test("kinds without a handler wait for a worker that has one", async () => {
    run(loop);
    await queue.insert(newJob("j", { kind: "distillation" }));
    await delay(200);
    expect(await status()).toBe("queued");
  });
});
