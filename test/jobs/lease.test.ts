import { setTimeout as delay } from "node:timers/promises";
import { afterEach, beforeAll, expect, test } from "vitest";
import { LeaseLost } from "../../src/jobs/lease.ts";
import { createJobQueue, type JobQueue } from "../../src/jobs/queue.ts";
import type { Lease } from "../../src/jobs/records.ts";
import { MAX_CRASHES, MAX_CRASHES_STARTING } from "../../src/jobs/requeue.ts";
import { describeDatabases } from "../db/databases.ts";
import { allEvents, empty, newCheckpoint, newJob, outline, take } from "./fixtures.ts";

/** A lease that has run out by the time anyone looks. */
const NO_TIME_MS = -1_000;

describeDatabases("leases", ({ database }) => {
  let queue: JobQueue;
  beforeAll(() => {
    queue = createJobQueue(database().db);
  });
  afterEach(() => empty(database()));

  /** Every write of a holder. */
  const writes: Record<string, (lease: Lease) => Promise<unknown>> = {
    heartbeat: (lease) => queue.heartbeat(lease, 60_000),
    append: (lease) => queue.append(lease, [{ type: "job.sample", data: {} }]),
    metrics: (lease) => queue.writeMetrics(lease, 1, { loss: 1 }),
    progress: (lease) => queue.writeProgress(lease, { step: 9 }),
    checkpoint: (lease) => queue.addCheckpoint(lease, newCheckpoint("ckpt_late", 9, { isBest: true })),
    succeeded: (lease) => queue.finish(lease, { outcome: "succeeded" }),
    paused: (lease) => queue.finish(lease, { outcome: "paused" }),
    cancelled: (lease) => queue.finish(lease, { outcome: "cancelled" }),
    budget: (lease) => queue.finish(lease, { outcome: "budget" }),
    fail: (lease) => queue.fail(lease, { message: "", type: "server_error", param: null, code: "internal_error" }),
    giveBack: (lease) => queue.giveBack(lease),
    giveUp: (lease) => queue.giveUp(lease, "why"),
  };

  test("a lease that is kept up is not swept; one that ran out is, and the job goes to the next", async () => {
    await queue.insert(newJob("j"));
    const first = await take(queue, "first", 1_000);
    for (let beat = 0; beat < 4; beat++) {
      await delay(400);
      expect((await queue.heartbeat(first.lease, 1_000)).leaseToken).toBe(1);
      expect(await queue.sweep()).toEqual([]);
    }
    await delay(1_200);
    expect(await queue.sweep()).toMatchObject([
      { id: "j", status: "queued", crashes: 1, leaseOwner: null, error: null },
    ]);
    expect(await queue.sweep()).toEqual([]);
    expect((await take(queue, "second")).job).toMatchObject({ leaseToken: 2, attempts: 2, leaseOwner: "second" });
    expect(outline(await allEvents(queue, "j"))).toEqual([
      "job.status queued",
      "job.status running",
      "job.warning worker_lost",
      "job.status queued",
      "job.status running",
    ]);
  });

  test("a worker whose lease ran out, but whose job nobody has taken, keeps it with its next heartbeat", async () => {
    await queue.insert(newJob("j"));
    const { lease } = await take(queue, "slow", NO_TIME_MS);
    await queue.heartbeat(lease, 60_000);
    expect(await queue.sweep()).toEqual([]);
  });

  for (const when of ["queued again", "held by another", "paused", "finished"]) {
    test(`a worker that lost its job to be ${when} writes nothing`, async () => {
      await queue.insert(newJob("j"));
      const { lease } = await take(queue, "old", NO_TIME_MS);
      await queue.sweep();
      if (when === "paused") await queue.pause("j");
      if (when === "held by another" || when === "finished") {
        const { lease: current } = await take(queue, "new");
        if (when === "finished") await queue.finish(current, { outcome: "succeeded", result: { by: "new" } });
      }
      const before = [await queue.get("j"), await allEvents(queue, "j")];
      for (const [name, write] of Object.entries(writes)) {
        await expect(write(lease), name).rejects.toBeInstanceOf(LeaseLost);
      }
      expect([await queue.get("j"), await allEvents(queue, "j")]).toEqual(before);
      expect(await queue.metrics("j")).toEqual({});
      expect(await queue.findCheckpoint("ckpt_late")).toBeUndefined();
    });
  }

  test("a token of the future is as good as none", async () => {
    await queue.insert(newJob("j"));
    await take(queue);
    await expect(queue.heartbeat({ jobId: "j", token: 2 }, 1_000)).rejects.toBeInstanceOf(LeaseLost);
    await expect(queue.heartbeat({ jobId: "none", token: 1 }, 1_000)).rejects.toBeInstanceOf(LeaseLost);
  });

  test("with writes and the sweep at once, whatever was written was written by the holder of that moment", async () => {
    for (let round = 0; round < 10; round++) {
      const id = `race${round}`;
      await queue.insert(newJob(id));
      const { lease } = await take(queue, "old", NO_TIME_MS);
      const late = Array.from({ length: 5 }, (_, n) =>
        queue.append(lease, [{ type: "job.sample", data: { n } }]).then(
          () => true,
          () => false,
        ),
      );
      const sweeps = Promise.all([queue.sweep(), queue.sweep()]);
      const accepted = await Promise.all(late);
      // A row that is being written is skipped, and found by the next sweep.
      expect([...(await sweeps), await queue.sweep()].flat()).toHaveLength(1);
      const types = (await allEvents(queue, id)).map((event) => event.type);
      const samples = types.filter((type) => type === "job.sample").length;
      expect(samples).toBe(accepted.filter(Boolean).length);
      expect(types.indexOf("job.warning")).toBe(2 + samples);
      await queue.cancel(id);
    }
  });

  /** An attempt that reports these steps and is then lost. */
  const lose = async (...steps: number[]): Promise<void> => {
    const { lease } = await take(queue);
    for (const step of steps) await queue.writeProgress(lease, { step, total_steps: 10 });
    await queue.heartbeat(lease, NO_TIME_MS);
    await queue.sweep();
  };

  for (const [place, most, steps] of [
    ["within the same step", MAX_CRASHES, [3, 4]],
    ["before its first step", MAX_CRASHES_STARTING, []],
  ] as const) {
    test(`${most} workers lost in a row ${place} are the job's doing`, async () => {
      await queue.insert(newJob("j"));
      for (let n = 1; n < most; n++) {
        await lose(...steps);
        expect(await queue.get("j")).toMatchObject({ status: "queued", crashes: n, error: null });
      }
      await lose(...steps);
      const job = await queue.get("j");
      expect(job).toMatchObject({ status: "failed", crashes: most, error: { code: "interrupted" }, leaseUntil: null });
      expect(job.error?.message).toContain(`${most} times in a row ${place}`);
      expect(job.finishedAt).toBeInstanceOf(Date);
      expect(outline(await allEvents(queue, "j")).slice(-2)).toEqual(["job.warning worker_lost", "job.failed failed"]);
      expect(await queue.claim({ owner: "w", kinds: ["test"], leaseMs: 1 })).toBeUndefined();
    });
  }

  test("workers lost here and there are chance, even where the job gets no further than before", async () => {
    await queue.insert(newJob("j"));
    for (let round = 0; round < 2 * MAX_CRASHES_STARTING; round++) {
      await lose(1, 2, 3);
      await lose(1, 2);
      await lose();
    }
    expect(await queue.get("j")).toMatchObject({ status: "queued", crashes: 1, crashStep: null });
  });

  test("given back in good order is no crash; interrupted from outside is", async () => {
    await queue.insert(newJob("j"));
    for (let n = 0; n < MAX_CRASHES + 1; n++) await queue.giveBack((await take(queue)).lease);
    expect(await queue.get("j")).toMatchObject({ status: "queued", crashes: 0 });
    for (let n = 0; n < MAX_CRASHES_STARTING; n++) await queue.giveUp((await take(queue)).lease, "the disk was away");
    expect(await queue.get("j")).toMatchObject({ status: "failed", error: { code: "interrupted" } });
    expect((await allEvents(queue, "j")).at(-2)).toMatchObject({ data: { message: "the disk was away" } });
  });

  test("what was asked of a worker that is gone is done", async () => {
    for (const id of ["pause", "cancel"] as const) {
      await queue.insert(newJob(id));
      await take(queue, "w", NO_TIME_MS);
      expect(await queue[id](id)).toMatchObject({ status: "running", wanted: id });
    }
    await queue.sweep();
    expect(await queue.get("pause")).toMatchObject({ status: "paused", wanted: null, finishedAt: null });
    expect(await queue.get("cancel")).toMatchObject({
      status: "cancelled",
      wanted: null,
      finishedAt: expect.any(Date),
    });
    expect((await allEvents(queue, "cancel")).at(-1)).toMatchObject({ type: "job.cancelled" });
  });

  test("who has the database for himself need not wait for leases", async () => {
    await queue.insert(newJob("j"));
    await take(queue);
    expect(await queue.sweep()).toEqual([]);
    expect(await queue.sweep({ exclusive: true })).toMatchObject([{ id: "j", status: "queued", crashes: 1 }]);
  });
});
