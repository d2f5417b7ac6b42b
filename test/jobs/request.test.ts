import { afterEach, beforeAll, expect, test } from "vitest";
import { createJobQueue, type JobQueue } from "../../src/jobs/queue.ts";
import type { Lease } from "../../src/jobs/records.ts";
import { describeDatabases } from "../db/databases.ts";
import { allEvents, empty, newJob, outline, take } from "./fixtures.ts";

const REFUSED = "409";
type Verb = "pause" | "cancel" | "resume";

/** Status and wanted before → the same after each verb. */
const TABLE: Record<string, Record<Verb, string>> = {
  queued: { pause: "paused", cancel: "cancelled", resume: REFUSED },
  running: { pause: "running pause", cancel: "running cancel", resume: REFUSED },
  "running pause": { pause: "running pause", cancel: "running cancel", resume: "running" },
  "running cancel": { pause: REFUSED, cancel: "running cancel", resume: REFUSED },
  paused: { pause: "paused", cancel: "cancelled", resume: "queued" },
  succeeded: { pause: REFUSED, cancel: REFUSED, resume: REFUSED },
  failed: { pause: REFUSED, cancel: REFUSED, resume: REFUSED },
  cancelled: { pause: REFUSED, cancel: "cancelled", resume: REFUSED },
};

describeDatabases("requests", ({ database }) => {
  let queue: JobQueue;
  beforeAll(() => {
    queue = createJobQueue(database().db);
  });
  afterEach(() => empty(database()));

  const state = async (): Promise<string> => {
    const { status, wanted } = await queue.get("j");
    return wanted === null ? status : `${status} ${wanted}`;
  };

  /** Brings job j into a state; returns the lease where it runs. */
  async function bring(wanted: string): Promise<Lease | undefined> {
    await queue.insert(newJob("j"));
    if (wanted === "queued") return undefined;
    if (wanted === "paused" || wanted === "cancelled") {
      await queue[wanted === "paused" ? "pause" : "cancel"]("j");
      return undefined;
    }
    const { lease } = await take(queue);
    if (wanted === "running pause") await queue.pause("j");
    if (wanted === "running cancel") await queue.cancel("j");
    if (wanted === "succeeded") await queue.finish(lease, { outcome: "succeeded" });
    if (wanted === "failed") {
      await queue.fail(lease, { message: "m", type: "server_error", param: null, code: "internal_error" });
    }
    return lease;
  }

  for (const [before, verbs] of Object.entries(TABLE)) {
    for (const [verb, after] of Object.entries(verbs) as [Verb, string][]) {
      test(`${verb} while ${before}: ${after}`, async () => {
        await bring(before);
        expect(await state()).toBe(before);
        const events = (await allEvents(queue, "j")).length;
        if (after === REFUSED) {
          await expect(queue[verb]("j")).rejects.toMatchObject({ status: 409, code: "conflict" });
          expect(await state()).toBe(before);
        } else {
          await queue[verb]("j");
          expect(await state()).toBe(after);
        }
        // An event for what changed, none for what was so already.
        const changed = after !== REFUSED && after !== before;
        expect((await allEvents(queue, "j")).length).toBe(events + (changed ? 1 : 0));
        const final = ["succeeded", "failed", "cancelled"].includes(await state());
        expect((await queue.get("j")).finishedAt !== null).toBe(final);
      });
    }
  }

  test("a job that nobody runs is wrapped up with the progress it is given; one that was claimed meanwhile is left", async () => {
    await bring("paused");
    const seen = await queue.get("j");
    expect(await queue.wrapUp(seen, { step: 3, made: { ending: 1 } })).toMatchObject({ status: "queued" });
    const { job } = await take(queue);
    expect(job.progress).toEqual({ step: 3, made: { ending: 1 } });
    expect(await queue.wrapUp(seen, { step: 4 })).toBeUndefined();
    expect(await queue.wrapUp(job, { step: 4 })).toBeUndefined();
    expect((await queue.get("j")).progress).toEqual(job.progress);
  });

  test("what does not exist is not found", async () => {
    for (const verb of ["pause", "cancel", "resume"] as const) {
      await expect(queue[verb]("none")).rejects.toMatchObject({ status: 404, code: "not_found" });
    }
  });

  test("a refusal says which state the job is in", async () => {
    await bring("running cancel");
    await expect(queue.pause("j")).rejects.toThrow("cannot pause this job: it is being cancelled");
  });

  test("the worker hears of it with its next answer, comes to a halt, and the job goes on when resumed", async () => {
    const lease = (await bring("running"))!;
    await queue.pause("j");
    expect((await queue.heartbeat(lease, 60_000)).wanted).toBe("pause");
    expect((await queue.writeProgress(lease, { step: 7 })).wanted).toBe("pause");
    await queue.finish(lease, { outcome: "paused" });
    expect(await queue.claim({ owner: "w", kinds: ["test"], leaseMs: 1_000 })).toBeUndefined();
    await queue.resume("j");
    const again = await take(queue);
    expect(again.job).toMatchObject({ attempts: 2, progress: { step: 7 }, wanted: null, finishedAt: null });
    await queue.finish(again.lease, { outcome: "succeeded", result: { checkpoint: "ckpt_1" } });
    expect(await queue.get("j")).toMatchObject({ status: "succeeded", result: { checkpoint: "ckpt_1" } });
    expect(outline(await allEvents(queue, "j"))).toEqual([
      "job.status queued",
      "job.status running",
      "job.status running",
      "job.status paused",
      "job.status queued",
      "job.status running",
      "job.completed succeeded",
    ]);
  });

  for (const [change, after] of [
    ["cancel", "cancelled"],
    ["resume", "queued"],
  ] as const) {
    test(`${change} while the worker is about to pause: ${after}`, async () => {
      const lease = (await bring("running pause"))!;
      await queue[change]("j");
      await queue.finish(lease, { outcome: "paused" });
      expect(await state()).toBe(after);
    });
  }

  test("a job that is done when its cancelling is seen has succeeded; a cancelled one keeps what it has", async () => {
    const lease = (await bring("running cancel"))!;
    await queue.finish(lease, { outcome: "succeeded" });
    expect(await queue.get("j")).toMatchObject({ status: "succeeded", wanted: null });
    await queue.insert(newJob("k"));
    await queue.finish((await take(queue)).lease, { outcome: "cancelled", result: { checkpoint: "ckpt_9" } });
    expect(await queue.get("k")).toMatchObject({ status: "cancelled", result: { checkpoint: "ckpt_9" } });
    expect((await allEvents(queue, "k")).at(-1)?.data).toEqual({
      status: "cancelled",
      result: { checkpoint: "ckpt_9" },
    });
  });

  test("a spent budget is a success with a warning", async () => {
    const lease = (await bring("running"))!;
    await queue.finish(lease, { outcome: "budget", result: 1 });
    expect(await state()).toBe("succeeded");
    expect(outline(await allEvents(queue, "j")).slice(-2)).toEqual([
      "job.warning budget_spent",
      "job.completed succeeded",
    ]);
  });

  test("of requests and claims at once none is lost", async () => {
    for (let round = 0; round < 10; round++) {
      const id = `r${round}`;
      await queue.insert(newJob(id));
      const [claimed, cancelled] = await Promise.all([
        queue.claim({ owner: "w", kinds: ["test"], leaseMs: 60_000 }),
        queue.cancel(id),
      ]);
      const job = await queue.get(id);
      // Either the worker was first and is told, or the job was cancelled before it began.
      if (claimed) expect(job).toMatchObject({ status: "running", wanted: "cancel" });
      else expect(job).toMatchObject({ status: "cancelled", attempts: 0 });
      expect(cancelled.id).toBe(id);
    }
  });
});
