import { MessageChannel, type Worker } from "node:worker_threads";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createPeer, type HandlerContext, type Peer } from "../../../src/thread/peer.ts";
import { spawnWorker } from "../../../src/thread/spawn.ts";

let worker: Worker;
let peer: Peer;
beforeAll(() => {
  worker = spawnWorker(new URL("./echo-worker.ts", import.meta.url));
  peer = createPeer(worker, { answer: (question: string) => `${question} yes` });
});
afterAll(() => worker.terminate());

test("calls return values and typed errors", async () => {
  expect(await peer.call("add", { a: 2, b: 3 })).toBe(5);
  expect(await peer.call("move", null)).toEqual(new Float32Array([1, 2, 3]));
  await expect(peer.call("refuse", null)).rejects.toMatchObject({
    code: "invalid_value",
    param: "colour",
    status: 400,
  });
  await expect(peer.call("nothing", null)).rejects.toThrow("no handler for nothing");
});

test("the worker may call back", async () => {
  expect(await peer.call("askBack", "ready?")).toBe("ready? yes");
});

test("a stream arrives in order, waits for its reader and ends with it", async () => {
  const seen: number[] = [];
  for await (const value of peer.stream<number>("count", 5)) seen.push(value);
  expect(seen).toEqual([0, 1, 2, 3, 4]);
  for await (const value of peer.stream<number>("count", 1_000_000)) if (value === 3) break;
  const state = await peer.call<{ aborted: number; emitted: number }>("state", null);
  expect(state.aborted).toBe(1);
  expect(state.emitted).toBeLessThanOrEqual(5);
});

test("an aborted call ends on the other side", async () => {
  const controller = new AbortController();
  const waiting = peer.call("wait", null, { signal: controller.signal });
  controller.abort();
  await expect(waiting).rejects.toMatchObject({ code: "cancelled" });
});

test("what cannot be copied to another thread is refused, and the next call works", async () => {
  await expect(peer.call("add", { a: () => 1 })).rejects.toThrow(/could not be cloned/);
  expect(await peer.call("add", { a: 1, b: 1 })).toBe(2);
});

test("a handler that waits for its reader is let go when its caller is gone", async () => {
  const { port1, port2 } = new MessageChannel();
  let ended = false;
  const server = createPeer(port1, {
    async endless(_: unknown, { emit, signal }: HandlerContext) {
      while (!signal.aborted) await emit(1);
      ended = true;
    },
  });
  const client = createPeer(port2, {});
  const reader = client.stream("endless", null)[Symbol.asyncIterator]();
  expect(await reader.next()).toEqual({ value: 1, done: false });
  server.fail(new Error("closing"));
  await expect.poll(() => ended).toBe(true);
  port1.close();
});

test("a dead thread rejects what is under way and what comes later", async () => {
  const waiting = peer.call("wait", null);
  peer.fail(new Error("worker died"));
  await expect(waiting).rejects.toThrow("worker died");
  await expect(peer.call("add", { a: 1, b: 1 })).rejects.toThrow("worker died");
});
