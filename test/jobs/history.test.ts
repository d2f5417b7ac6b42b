import { setTimeout as delay } from "node:timers/promises";
import { afterEach, beforeAll, expect, test } from "vitest";
import { createJobQueue, type JobQueue } from "../../src/jobs/queue.ts";
import type { JobEvent } from "../../src/jobs/records.ts";
import { describeDatabases } from "../db/databases.ts";
import { allEvents, empty, newCheckpoint, newJob, take, until } from "./fixtures.ts";

describeDatabases("events, metrics, checkpoints", ({ database }) => {
  let queue: JobQueue;
  beforeAll(() => {
    queue = createJobQueue(database().db);
  });
  afterEach(() => empty(database()));

  const start = async () => {
    await queue.insert(newJob("j"));
    return (await take(queue)).lease;
  };
  const seqs = (events: readonly JobEvent[]): number[] => events.map((event) => event.seq);
  const countTo = (n: number, from = 1): number[] => Array.from({ length: n - from + 1 }, (_, i) => from + i);

  test("events are dense and in order, whoever writes at the same time", async () => {
    const lease = await start();
    let most = 0;
    let over = false;
    const reader = (async () => {
      while (!over) {
        const seen = await allEvents(queue, "j");
        // What is visible never has a gap, also while others write.
        expect(seqs(seen)).toEqual(countTo(seen.length));
        expect(seen.length).toBeGreaterThanOrEqual(most);
        most = seen.length;
      }
    })();
    const others = Array.from({ length: 5 }, (_, n) => queue.insert(newJob(`other${n}`)));
    await Promise.all([
      ...Array.from({ length: 40 }, (_, n) =>
        queue.append(lease, [
          { type: "job.sample", data: { n, part: 1 } },
          { type: "job.sample", data: { n, part: 2 } },
        ]),
      ),
      ...Array.from({ length: 10 }, (_, n) => queue.writeMetrics(lease, n, { loss: n })),
      queue.pause("j"),
      ...others,
    ]);
    over = true;
    await reader;
    const events = await allEvents(queue, "j");
    expect(seqs(events)).toEqual(countTo(2 + 80 + 10 + 1));
    expect((await queue.get("j")).lastSeq).toBe(93);
    const samples = events.filter((event) => event.type === "job.sample").map((event) => event.data);
    // Those of one call stand together.
    for (let i = 0; i < 80; i += 2) {
      const { n } = samples[i] as { n: number };
      expect([samples[i], samples[i + 1]]).toEqual([
        { n, part: 1 },
        { n, part: 2 },
      ]);
    }
  });

  test("any data survives, and is read after a number, as many as asked for", async () => {
    const lease = await start();
    const data = { text: "\u0000\ud800\ue000", numbers: [0.1, 1e300, -0.5], z: 1, a: null };
    await queue.append(lease, [{ type: "job.sample", data }]);
    const [event] = await queue.events("j", { after: 2, limit: 10 });
    expect(event).toEqual({ jobId: "j", seq: 3, type: "job.sample", data, at: expect.any(Date) });
    expect(seqs(await queue.events("j", { after: 0, limit: 2 }))).toEqual([1, 2]);
    expect(await queue.events("j", { after: 2 ** 40, limit: 2 })).toEqual([]);
    await queue.finish(lease, { outcome: "succeeded", result: data });
    expect((await allEvents(queue, "j")).at(-1)?.data).toEqual({ status: "succeeded", result: data });
  });

  /** Follows until the end or `limit` events. */
  function watch(after: number, options: { pollMs?: number; on?: JobQueue } = {}) {
    const seen: JobEvent[] = [];
    const controller = new AbortController();
    const done = (async () => {
      const { on = queue, pollMs = 60_000 } = options;
      for await (const event of on.follow("j", { after, signal: controller.signal, pollMs })) seen.push(event);
    })();
    return { seen, done, stop: () => controller.abort() };
  }

  test("following replays after a number, goes on live, and ends with the job", async () => {
    const lease = await start();
    const [whole, tail] = [watch(0), watch(2)];
    await until(() => whole.seen.length === 2);
    expect(tail.seen).toEqual([]);
    await Promise.all(countTo(250).map((n) => queue.append(lease, [{ type: "job.sample", data: { n } }])));
    await queue.append(lease, []);
    await until(() => whole.seen.length === 252);
    await queue.finish(lease, { outcome: "succeeded" });
    await Promise.all([whole.done, tail.done]);
    expect(seqs(whole.seen)).toEqual(countTo(253));
    expect(seqs(tail.seen)).toEqual(countTo(253, 3));
    expect(tail.seen.at(-1)?.type).toBe("job.completed");
    // Afterwards: a replay, or nothing for who has seen the end.
    const replay = watch(250);
    await replay.done;
    expect(seqs(replay.seen)).toEqual([251, 252, 253]);
    for (const after of [253, 9_999]) await watch(after).done;
  });

  test("events of another process arrive by looking", async () => {
    const lease = await start();
    // Its own bell: it hears nothing of the first.
    const elsewhere = watch(2, { pollMs: 50, on: createJobQueue(database().db) });
    const deaf = watch(2, { on: createJobQueue(database().db) });
    await delay(100);
    await queue.append(lease, [{ type: "job.sample", data: 1 }]);
    await until(() => elsewhere.seen.length === 1);
    expect(deaf.seen).toEqual([]);
    elsewhere.stop();
    deaf.stop();
    await Promise.all([elsewhere.done, deaf.done]);
  });

  test("who stops following is let go at once; what does not exist cannot be followed", async () => {
    await start();
    const watcher = watch(2);
    await delay(50);
    watcher.stop();
    await watcher.done;
    const none = queue.follow("none", { after: 0, signal: new AbortController().signal });
    await expect(none.next()).rejects.toMatchObject({ code: "not_found" });
  });

  test("metrics are overwritten by step and name, merged into the latest, and events only append", async () => {
    const lease = await start();
    await queue.writeMetrics(lease, 1, { loss: 1, reward: 0.5 });
    await queue.writeMetrics(lease, 2, { loss: 0.9 });
    await queue.writeMetrics(lease, 1, { loss: 1.5 });
    expect(await queue.metrics("j")).toEqual({
      loss: [
        { step: 1, value: 1.5 },
        { step: 2, value: 0.9 },
      ],
      reward: [{ step: 1, value: 0.5 }],
    });
    expect((await queue.get("j")).metrics).toEqual({ loss: 1.5, reward: 0.5 });
    const events = (await allEvents(queue, "j")).filter((event) => event.type === "job.metrics");
    expect(events.map((event) => event.data)).toEqual([
      { step: 1, metrics: { loss: 1, reward: 0.5 } },
      { step: 2, metrics: { loss: 0.9 } },
      { step: 1, metrics: { loss: 1.5 } },
    ]);
  });

  test("every number and name survives; what is no finite number is null", async () => {
    const lease = await start();
    const values = {
      max: Number.MAX_VALUE,
      min: Number.MIN_VALUE,
      tenth: 0.1,
      "completions/mean_length": 2 ** 53 - 1,
      "\u0000\ud800": 1,
      nan: Number.NaN,
      infinite: Number.POSITIVE_INFINITY,
    };
    await queue.writeMetrics(lease, 3, values);
    const expected = { ...values, nan: null, infinite: null };
    const { metrics } = await queue.get("j");
    expect(metrics).toEqual(expected);
    const series = await queue.metrics("j");
    expect(Object.fromEntries(Object.entries(series).map(([name, [point]]) => [name, point?.value]))).toEqual(expected);
  });

  test("series by name, after a step, one point per stretch", async () => {
    const lease = await start();
    for (let step = 1; step <= 10; step++) {
      await queue.writeMetrics(lease, step, { loss: step / 10, ...(step % 5 === 0 ? { "eval/loss": step } : {}) });
    }
    const steps = async (query: object) =>
      Object.fromEntries(
        Object.entries(await queue.metrics("j", query)).map(([name, points]) => [
          name,
          points.map((point) => point.step),
        ]),
      );
    expect(await steps({})).toEqual({ "eval/loss": [5, 10], loss: countTo(10) });
    expect(await steps({ names: ["eval/loss", "none"] })).toEqual({ "eval/loss": [5, 10] });
    expect(await steps({ after: 7 })).toEqual({ "eval/loss": [10], loss: [8, 9, 10] });
    // The last of each stretch 0–3, 4–7, 8–11; the last step is never missing.
    expect(await steps({ every: 4 })).toEqual({ "eval/loss": [5, 10], loss: [3, 7, 10] });
    expect(await steps({ every: 1_000, after: 2 })).toEqual({ "eval/loss": [10], loss: [10] });
    expect(await queue.metrics("none")).toEqual({});
  });

  test("checkpoints are kept with their event; one is the best; the last that is not deleted is where to go on", async () => {
    const lease = await start();
    await queue.addCheckpoint(lease, newCheckpoint("ckpt_a", 10, { isBest: true, config: { parents: ["x"] } }));
    await queue.addCheckpoint(lease, newCheckpoint("ckpt_b", 20, { isBest: true }));
    await queue.addCheckpoint(lease, newCheckpoint("ckpt_c", 30));
    // The answer was lost, the call repeated.
    await queue.addCheckpoint(lease, newCheckpoint("ckpt_c", 30));
    const loose = await queue.addLooseCheckpoint(newCheckpoint("ckpt_s", 1));
    expect(loose).toMatchObject({ jobId: null, isBest: false });
    const all = await queue.listCheckpoints({ jobId: "j", limit: 10, order: "asc" });
    expect(all.rows.map(({ id, isBest }) => [id, isBest]).toSorted()).toEqual([
      ["ckpt_a", false],
      ["ckpt_b", true],
      ["ckpt_c", false],
    ]);
    expect(await queue.findCheckpoint("ckpt_a")).toEqual({
      id: "ckpt_a",
      jobId: "j",
      step: 10,
      kind: "adapter",
      artifact: "sha256/ckpt_a",
      weightsHash: "w-ckpt_a",
      config: { parents: ["x"] },
      isBest: false,
      createdAt: expect.any(Date),
      deletedAt: null,
    });
    expect((await queue.lastCheckpoint("j"))?.id).toBe("ckpt_c");
    expect(await queue.removeCheckpoint("ckpt_c")).toBe(true);
    expect(await queue.removeCheckpoint("ckpt_c")).toBe(false);
    expect((await queue.lastCheckpoint("j"))?.id).toBe("ckpt_b");
    expect((await queue.findCheckpoint("ckpt_c"))?.deletedAt).toBeInstanceOf(Date);
    expect((await queue.listCheckpoints({ limit: 10, order: "desc" })).rows).toHaveLength(3);
    const events = (await allEvents(queue, "j")).filter((event) => event.type === "job.checkpoint");
    expect(events.map((event) => event.data)).toEqual([
      { id: "ckpt_a", step: 10, kind: "adapter", weights_hash: "w-ckpt_a", is_best: true },
      { id: "ckpt_b", step: 20, kind: "adapter", weights_hash: "w-ckpt_b", is_best: true },
      { id: "ckpt_c", step: 30, kind: "adapter", weights_hash: "w-ckpt_c", is_best: false },
    ]);
  });
});
