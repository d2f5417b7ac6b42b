/** Requests that wait: they know where they stand, clients take turns, and nobody waits behind one who has left. */
import { expect, test, vi } from "vitest";
import type { QueueReason, RemoteModel } from "../../../src/engine/engine.ts";
import { connect, eventually, fake, sampleAll, score, type Wanted } from "./fixture.ts";

vi.mock("../../../src/engine/openai/limits.ts", async (original) => {
  const { QUICK } = await import("./quick-limits.ts");
  const small = { MAX_ACTIVE_PER_REPLICA: 4, MAX_WAITING_PER_CLIENT: 5, MAX_WAITING: 8 };
  return { ...(await original<object>()), ...QUICK, ...small, WAIT_FOR_REPLICA_MS: 15_000 };
});

interface Told {
  position: number;
  reason: QueueReason;
}

let prompts = 0;

/** Requests with names, and in which order they began and ended. */
function recorder(model: RemoteModel) {
  const began: string[] = [];
  const told = new Map<string, Told[]>();
  const ask = async (name: string, request: Wanted = {}): Promise<void> => {
    told.set(name, []);
    const promptIds = Int32Array.of(8, ++prompts % 300);
    await sampleAll(model, { client: name[0]!, promptIds, ...request }, (event) => {
      if (event.type === "queued") told.get(name)!.push({ position: event.position, reason: event.reason });
      if (event.type === "prompt") began.push(name);
    });
  };
  return { ask, began, told };
}

test("clients take turns; each request hears its place fall, and why it waits", async () => {
  const server = await fake({ tokenMs: 2 });
  const { model } = await connect([server]);
  const { ask, began, told } = recorder(model);
  const full = { n: 4 };
  const asked = ["a1", "a2", "a3", "a4", "b1", "c1"].map((name) => ask(name, full));
  await eventually(() => model.load().waiting === 5);
  await Promise.all(asked);
  expect(began).toEqual(["a1", "a2", "b1", "c1", "a3", "a4"]);
  const places = (name: string): string[] => told.get(name)!.map(({ position, reason }) => `${position} ${reason}`);
  expect(places("a1")).toEqual([]);
  // Once others wait too, it is having its share that keeps this client waiting.
  expect(places("a2")).toEqual(["1 slots", "1 client_limit"]);
  // Those who come later but have not had their turn go first.
  expect(places("a3")).toEqual(["2 turn", "3 turn", "4 turn", "3 turn", "2 turn", "1 slots"]);
  expect(places("b1")).toEqual(["2 slots", "1 slots"]);
  expect(places("c1")).toEqual(["3 turn", "2 turn", "1 slots"]);
  expect(server.seen.mostOpenStreams).toBe(1);
  expect(model.load()).toMatchObject({ active: 0, waiting: 0 });
});

test("interactive requests go before jobs; scoring and sampling share the slots", async () => {
  const server = await fake({ tokenMs: 2 });
  const { model } = await connect([server]);
  const { ask, began } = recorder(model);
  const order: string[] = [];
  const first = ask("a1", { n: 4 });
  const job = ask("j1", { n: 4, priority: "job" });
  const scored = score(model, Int32Array.of(1, 2, 3), { client: "s", priority: "job" }).then(() =>
    order.push("scored"),
  );
  const late = ask("b1", { n: 4 });
  await Promise.all([first, job, late, scored]);
  expect(began).toEqual(["a1", "b1", "j1"]);
  expect(order).toEqual(["scored"]);
});

test("a group larger than a replica's slots runs when that is idle, and is not overtaken for ever", async () => {
  const server = await fake({ tokenMs: 2 });
  const { model } = await connect([server]);
  const { ask, began } = recorder(model);
  const running = ask("a1", { n: 2 });
  const large = ask("b1", { n: 9 });
  const small = ask("c1", { n: 1 });
  await Promise.all([running, large, small]);
  expect(began).toEqual(["a1", "b1", "c1"]);
});

test("while others wait, nobody takes more than a share of the slots", async () => {
  const server = await fake({ tokenMs: 3 });
  const { model } = await connect([server]);
  const { ask, began, told } = recorder(model);
  const asked = [ask("a1"), ask("a2"), ask("a3", { n: 3 }), ask("b1")];
  await Promise.all(asked);
  expect(began).toEqual(["a1", "a2", "b1", "a3"]);
  expect(told.get("a3")!.map(({ reason }) => reason)).toContain("client_limit");
});

test("who leaves the line makes room for those behind", async () => {
  const server = await fake({ tokenMs: 5 });
  const { model } = await connect([server]);
  const { ask, began, told } = recorder(model);
  const cancelling = new AbortController();
  const running = ask("a1", { n: 2, params: { maxTokens: 60 } });
  const large = ask("b1", { n: 4, signal: cancelling.signal });
  const small = ask("c1", { n: 1 });
  await eventually(() => told.get("c1")!.length > 0);
  expect(told.get("c1")).toEqual([{ position: 2, reason: "turn" }]);
  cancelling.abort();
  await Promise.all([large, small]);
  expect(began).toEqual(["a1", "c1"]);
  // The first is still under way: the last did not have to wait for it.
  expect(model.load().active).toBe(2);
  await running;
});

test("lines have an end, for each client and for all", async () => {
  const server = await fake({ tokenMs: 5 });
  const { model } = await connect([server]);
  const { ask } = recorder(model);
  const cancelling = new AbortController();
  const request = { n: 4, signal: cancelling.signal };
  const asked = ["a1", "a2", "a3", "a4", "a5", "a6"].map((name) => ask(name, request));
  await expect(ask("a7", request)).rejects.toMatchObject({ code: "queue_full", retryAfterSeconds: expect.any(Number) });
  asked.push(...["b1", "b2", "b3"].map((name) => ask(name, request)));
  await expect(ask("c1", request)).rejects.toMatchObject({ code: "overloaded", retryAfterSeconds: expect.any(Number) });
  await expect(score(model, Int32Array.of(1, 2))).rejects.toMatchObject({ code: "overloaded" });
  cancelling.abort();
  await Promise.all(asked);
  expect(model.load()).toMatchObject({ active: 0, waiting: 0 });
});

test("several replicas are several times the slots", async () => {
  const servers = [await fake({ tokenMs: 4 }), await fake({ tokenMs: 4 })];
  const { model } = await connect(servers);
  const { ask, told } = recorder(model);
  await Promise.all(["a1", "b1", "c1"].map((name) => ask(name, { n: 4 })));
  expect([...told.values()].map(({ length }) => length)).toEqual([0, 0, 1]);
  expect(servers.map(({ seen }) => seen.sequences).sort()).toEqual([4, 8]);
});
