/** Which models are in memory: one budget, one clock, every way in which a load or a wait can end. */
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, expect, test } from "vitest";
import { type Deferred, deferred } from "../../../src/deferred.ts";
import type { EngineModel, OpenOptions } from "../../../src/engine/engine.ts";
import { createPlacement, estimateBytes, type Placement } from "../../../src/engine/placement.ts";
import { fail } from "../../../src/errors.ts";
import type { Checkpoint } from "../../../src/model/checkpoint.ts";
import { createFakeEngine } from "../../api/fakes.ts";

const OPTIONS: OpenOptions = { precision: "fp32", contextLength: 512, threads: 1, device: "cpu" };
/** What one model is expected to take; the fake says what it takes once it is loaded. */
const ONE = estimateBytes(modelOf("any"), OPTIONS);

function modelOf(name: string): Checkpoint {
  return { directory: `/models/${name}`, weightsHash: `sha256:${name}`, parameters: 1000 } as Checkpoint;
}

interface Opened {
  name: string;
  ready: Deferred<void>;
  /** Settles the end of `close`. */
  gone: Deferred<void>;
  bytes: number;
  loaded: boolean;
  closed: boolean;
}

let placement: Placement;
const opened: Opened[] = [];
const events: string[] = [];

/** `room` models fit. Loads and ends wait to be allowed unless `instant`. */
function use({ room = 2, waitMs = 5_000, instant = true, failing = new Set<string>() } = {}): void {
  opened.length = 0;
  events.length = 0;
  placement = createPlacement({
    engine: { open },
    budgetBytes: room * ONE,
    waitMs,
    onLoad: ({ directory }) => events.push(`+${directory.slice(8)}`),
    onUnload: ({ directory }) => events.push(`-${directory.slice(8)}`),
  });

  async function open(checkpoint: Checkpoint): Promise<EngineModel> {
    const name = checkpoint.directory.slice(8);
    const entry: Opened = { name, ready: deferred(), gone: deferred(), bytes: ONE, loaded: false, closed: false };
    opened.push(entry);
    if (instant) {
      entry.ready.resolve();
      entry.gone.resolve();
    }
    await entry.ready.promise;
    if (failing.has(name)) throw fail("engine_failed", `${name} does not load`);
    entry.loaded = true;
    return {
      ...createFakeEngine(),
      memoryBytes: () => entry.bytes,
      async close() {
        entry.closed = true;
        await entry.gone.promise;
      },
    };
  }
}

const hold = (name: string, more: Parameters<Placement["hold"]>[2] = {}) =>
  placement.hold(modelOf(name), OPTIONS, more);
const statusOf = (name: string) => placement.status(modelOf(name), OPTIONS);
const count = (name: string) => opened.filter((entry) => entry.name === name).length;

afterEach(async () => {
  for (const entry of opened) {
    entry.ready.resolve();
    entry.gone.resolve();
  }
  await placement.close();
  for (const entry of opened) expect(entry.closed, entry.name).toBe(entry.loaded);
});

test("a model loads once for all who ask, and stays until somebody needs the room", async () => {
  use({ room: 2 });
  const [a, again] = await Promise.all([hold("a"), hold("a")]);
  expect(again.model).toBe(a.model);
  expect(placement.loaded()).toMatchObject([{ directory: "/models/a", precision: "fp32", bytes: ONE, held: 2 }]);
  a.release();
  a.release();
  expect(placement.loaded()[0]?.held).toBe(1);
  again.release();
  (await hold("b")).release();
  (await hold("a")).release();
  (await hold("c")).release();
  // b was used least recently.
  expect(events).toEqual(["+a", "+b", "-b", "+c"]);
  expect([statusOf("a"), statusOf("b")]).toEqual(["loaded", "unloaded"]);
  expect(placement.peek(modelOf("b"), OPTIONS)).toBeUndefined();
});

test("another precision, device or context is another model", async () => {
  use({ room: 3 });
  await placement.hold(modelOf("a"), OPTIONS);
  await placement.hold(modelOf("a"), { ...OPTIONS, precision: "q8" });
  expect(count("a")).toBe(2);
});

test("two that begin at once never take the same room", async () => {
  use({ room: 1, waitMs: 100 });
  const results = await Promise.allSettled([hold("a"), hold("b"), hold("c")]);
  expect(results.map((r) => r.status)).toEqual(["fulfilled", "rejected", "rejected"]);
  expect(opened).toHaveLength(1);
});

test("who waits for room gets it when a model is released, and loads it once", async () => {
  use({ room: 1 });
  const a = await hold("a");
  const waiting = [hold("b"), hold("b")];
  await sleep(20);
  expect(opened).toHaveLength(1);
  a.release();
  const [first, second] = await Promise.all(waiting);
  expect(first?.model).toBe(second?.model);
  expect(events).toEqual(["+a", "-a", "+b"]);
});

test("the memory of a model that is leaving counts until it is gone", async () => {
  use({ room: 1, instant: false });
  const holding = hold("a");
  opened[0]?.ready.resolve();
  (await holding).release();
  const next = hold("b");
  await sleep(20);
  expect(opened).toHaveLength(1);
  expect(opened[0]?.closed).toBe(true);
  // Somebody wants it back while it leaves: it is loaded anew, after the other one.
  const back = hold("a");
  opened[0]?.gone.resolve();
  await expect.poll(() => opened.length).toBe(2);
  opened[1]?.ready.resolve();
  opened[1]?.gone.resolve();
  await sleep(5);
  expect(count("a")).toBe(1);
  (await next).release();
  await expect.poll(() => count("a")).toBe(2);
  opened[2]?.ready.resolve();
  expect((await back).model).toBeDefined();
});

test("while one model leaves, no other is sent away in its place", async () => {
  use({ room: 2, instant: false });
  const [a, b] = [hold("a"), hold("b")];
  for (const entry of opened) entry.ready.resolve();
  (await a).release();
  const c = hold("c");
  await sleep(5);
  // Its release makes those who wait look again, and now b is idle too.
  (await b).release();
  await sleep(5);
  expect(opened.map((entry) => entry.closed)).toEqual([true, false]);
  for (const entry of opened) entry.gone.resolve();
  await expect.poll(() => opened.length).toBe(3);
  opened[2]?.ready.resolve();
  (await c).release();
  expect(statusOf("b")).toBe("loaded");
});

test("caches that grow count: they leave no room for another", async () => {
  use({ room: 2, waitMs: 50 });
  const a = await hold("a");
  (opened[0] as Opened).bytes = 1.5 * ONE;
  const error = await hold("b").catch((e: unknown) => e);
  expect(error).toMatchObject({ code: "model_loading", retryAfterSeconds: expect.any(Number) });
  expect((error as Error).message).toMatch(/in use.*PRECEPTOR_MODEL_MEMORY/);
  a.release();
  (await hold("b")).release();
  expect(events).toEqual(["+a", "-a", "+b"]);
});

test("a load that fails is told to all who wait, shows until the next success, and is tried again", async () => {
  const failing = new Set(["a"]);
  use({ room: 1, failing });
  const both = await Promise.allSettled([hold("a"), hold("a")]);
  for (const result of both) expect(result).toMatchObject({ reason: { code: "engine_failed" } });
  expect(opened).toHaveLength(1);
  expect(placement.failure(modelOf("a"), OPTIONS)).toMatchObject({ code: "engine_failed" });
  expect(statusOf("a")).toBe("unloaded");
  // It holds no room.
  (await hold("b")).release();
  failing.clear();
  (await hold("a")).release();
  expect(placement.failure(modelOf("a"), OPTIONS)).toBeUndefined();
});

test("a failed load makes room for those who wait", async () => {
  use({ room: 1, instant: false, failing: new Set(["a"]) });
  const a = hold("a");
  const b = hold("b");
  await sleep(10);
  opened[0]?.ready.resolve();
  await expect(a).rejects.toMatchObject({ code: "engine_failed" });
  await expect.poll(() => opened.length).toBe(2);
  opened[1]?.ready.resolve();
  (await b).release();
});

test("what can never fit is refused at once: too large, beside pinned ones, beside what the request holds", async () => {
  use({ room: 1.5 });
  const huge = { ...modelOf("huge"), parameters: 1e9 };
  await expect(placement.hold(huge, OPTIONS)).rejects.toMatchObject({
    code: "out_of_memory",
    message: expect.stringMatching(/needs about 3\.8 GiB at fp32/),
  });
  expect(placement.failure(huge, OPTIONS)).toMatchObject({ code: "out_of_memory" });
  const a = await hold("a");
  await expect(hold("b", { beside: a.model })).rejects.toMatchObject({ code: "out_of_memory" });
  a.release();
  placement.pin(modelOf("a"), OPTIONS, "id", true);
  await expect(hold("b")).rejects.toMatchObject({ code: "out_of_memory", message: expect.stringContaining("pinned") });
  placement.pin(modelOf("a"), OPTIONS, "id", false);
  (await hold("b")).release();
  expect(events).toEqual(["+a", "-a", "+b"]);
});

test("a model stays pinned while anybody pins it", async () => {
  use({ room: 2 });
  (await hold("a")).release();
  placement.pin(modelOf("a"), OPTIONS, "one", true);
  placement.pin(modelOf("a"), OPTIONS, "two", true);
  placement.pin(modelOf("a"), OPTIONS, "one", false);
  for (const name of ["b", "c", "d"]) (await hold(name)).release();
  await placement.drop(modelOf("a"), OPTIONS);
  expect(statusOf("a")).toBe("loaded");
});

test("a request that is cancelled stops waiting, for room and for a load; the load itself is kept", async () => {
  use({ room: 1, instant: false });
  const controller = new AbortController();
  const a = hold("a", { signal: controller.signal });
  const b = hold("b", { signal: controller.signal });
  await sleep(10);
  controller.abort();
  await expect(a).rejects.toMatchObject({ code: "cancelled" });
  await expect(b).rejects.toMatchObject({ code: "cancelled" });
  expect(statusOf("a")).toBe("loading");
  opened[0]?.ready.resolve();
  await expect.poll(() => placement.loaded()).toMatchObject([{ held: 0 }]);
  (await hold("a")).release();
  expect(opened).toHaveLength(1);
});

test("a load longer than the wait is answered with come back, and goes on", async () => {
  use({ room: 1, waitMs: 30, instant: false });
  await expect(hold("a")).rejects.toMatchObject({ code: "model_loading", status: 503 });
  opened[0]?.ready.resolve();
  await expect.poll(() => statusOf("a")).toBe("loaded");
  expect((await hold("a")).model).toBeDefined();
});

test("a dropped model goes at once, after its last user, or never if somebody takes it up again", async () => {
  use({ room: 2 });
  (await hold("idle")).release();
  await placement.drop(modelOf("idle"), OPTIONS);
  expect(events).toEqual(["+idle", "-idle"]);
  const busy = await hold("busy");
  await placement.drop(modelOf("busy"), OPTIONS);
  expect(statusOf("busy")).toBe("loaded");
  busy.release();
  await expect.poll(() => statusOf("busy")).toBe("unloaded");
  const shared = await hold("shared");
  await placement.drop(modelOf("shared"), OPTIONS);
  const another = await hold("shared");
  shared.release();
  another.release();
  expect(statusOf("shared")).toBe("loaded");
});

test("a model dropped while nobody waits for its load any more is ended once it is there", async () => {
  use({ room: 1, instant: false });
  const controller = new AbortController();
  const a = hold("a", { signal: controller.signal });
  controller.abort();
  await expect(a).rejects.toMatchObject({ code: "cancelled" });
  await placement.drop(modelOf("a"), OPTIONS);
  opened[0]?.ready.resolve();
  opened[0]?.gone.resolve();
  await expect.poll(() => opened[0]?.closed).toBe(true);
  expect(statusOf("a")).toBe("unloaded");
});

test("closing ends what is loaded and what is loading, and tells those who wait", async () => {
  use({ room: 2, instant: false });
  const a = hold("a");
  opened[0]?.ready.resolve();
  opened[0]?.gone.resolve();
  await a;
  const b = hold("b");
  const c = hold("c");
  await sleep(10);
  const closing = placement.close();
  await expect(c).rejects.toMatchObject({ code: "draining" });
  opened[1]?.ready.resolve();
  opened[1]?.gone.resolve();
  await expect(b).rejects.toMatchObject({ code: "draining" });
  await closing;
  expect(opened.map((entry) => entry.closed)).toEqual([true, true]);
  await expect(hold("a")).rejects.toMatchObject({ code: "draining", status: 503 });
  expect(placement.loaded()).toEqual([]);
});
