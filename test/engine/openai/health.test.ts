/** The circuit breaker, and servers that come back as they were, or as others. */
import { expect, test, vi } from "vitest";
import type { RemoteModel } from "../../../src/engine/engine.ts";
import type { FakeVllm } from "./fake-vllm.ts";
import { connect, eventually, fake, sampleAll, score } from "./fixture.ts";
import { drawIds, TOY } from "./toy-model.ts";

vi.mock("../../../src/engine/openai/limits.ts", async (original) => {
  const { QUICK } = await import("./quick-limits.ts");
  return { ...(await original<object>()), ...QUICK };
});

let prompts = 0;

/** As many prompts that were never seen before, side by side; the answers must be right. */
async function load(model: RemoteModel, requests: number): Promise<void> {
  await Promise.all(
    Array.from({ length: requests }, async () => {
      const promptIds = Int32Array.of(3, ++prompts % 300, Math.floor(prompts / 300));
      const [sampled] = await sampleAll(model, { promptIds });
      expect(sampled!.ids).toEqual(drawIds(TOY, promptIds, { seed: 1 }, 12));
    }),
  );
}

/** What clients, not probes, have asked of a server so far. */
const asked = (server: FakeVllm): number => server.completions().filter(({ body }) => body.max_tokens === 12).length;

test("three failures in a row open the breaker; then there is no traffic until a trial goes well", async () => {
  const [a, b] = [await fake(), await fake()];
  const { model, of } = await connect([a, b]);
  a.misbehave({ kind: "status", status: 500, message: "CUDA error" });
  await load(model, 12);
  await eventually(() => of("opened").length > 0);
  expect(of("opened")[0]).toMatchObject({ where: a.where, message: 'answered 500: "CUDA error"' });
  const before = asked(a);
  await load(model, 20);
  expect(asked(a)).toBe(before);
  // Trials go on, ever more rarely, and fail.
  await eventually(() => of("opened").length > 2);
  expect(of("closed")).toEqual([]);
  expect(asked(a)).toBe(before);
  a.behave();
  await eventually(() => of("closed").length === 1);
  expect(of("closed")[0]!.where).toBe(a.where);
  await load(model, 20);
  expect(asked(a)).toBeGreaterThan(before + 3);
  expect(of("opened").every(({ where }) => where === a.where)).toBe(true);
});

test("failures with successes between them open nothing", async () => {
  const [a, b] = [await fake(), await fake()];
  const { model, of } = await connect([a, b]);
  for (let i = 0; i < 4; i++) {
    a.misbehave({ kind: "status", status: 500 }, { times: 2 });
    await load(model, 6);
    await load(model, 6);
  }
  expect(of("failure").length).toBeGreaterThan(5);
  expect(of("opened")).toEqual([]);
  expect(asked(b)).toBeGreaterThan(0);
});

test("a refusal of the request says nothing about the server, and being busy opens no breaker", async () => {
  const server = await fake();
  const { model, of } = await connect([server]);
  server.misbehave({ kind: "status", status: 400 }, { times: 5 });
  for (let i = 0; i < 5; i++) await expect(sampleAll(model)).rejects.toMatchObject({ code: "backend_refused" });
  server.misbehave({ kind: "status", status: 429, retryAfter: "0.01" }, { times: 4 });
  await load(model, 1);
  expect(of("opened")).toEqual([]);
});

test("a replica that was restarted with the same weights is used again", async () => {
  const [a, b] = [await fake(), await fake()];
  const { model, of } = await connect([a, b]);
  await a.kill();
  await load(model, 10);
  await eventually(() => of("opened").length > 0);
  await a.revive();
  await eventually(() => of("closed").length === 1);
  expect(of("probed").at(-1)).toMatchObject({ where: a.where, differs: null });
  const before = asked(a);
  await load(model, 10);
  expect(asked(a)).toBeGreaterThan(before);
});

test("a replica that comes back with other weights stays out until it has the right ones", async () => {
  const [a, b] = [await fake(), await fake()];
  const { model, of } = await connect([a, b]);
  await a.kill();
  await load(model, 10);
  await eventually(() => of("opened").length > 0);
  a.settings.toy = { ...TOY, salt: 2 };
  await a.revive();
  await eventually(() => of("opened").some(({ message }) => message.includes("other weights than the other replicas")));
  expect(of("probed").at(-1)!.differs).toMatch(/differ by \d\.\d\d nats per token/);
  const before = asked(a);
  await load(model, 10);
  expect(asked(a)).toBe(before);
  a.settings.toy = TOY;
  await eventually(() => of("closed").length === 1);
  await load(model, 10);
  expect(asked(a)).toBeGreaterThan(before);
  expect(asked(b)).toBeGreaterThan(20);
});

test("a server that changes its weights without going away is noticed by its version, and kept out", async () => {
  const [a, b] = [await fake(), await fake()];
  const { model, of } = await connect([a, b]);
  await load(model, 4);
  a.settings.toy = { ...TOY, salt: 2 };
  a.settings.version = "0.34.0";
  await eventually(() => of("opened").length > 0);
  expect(of("opened")[0]).toMatchObject({ where: a.where });
  const before = asked(a);
  await load(model, 10);
  expect(asked(a)).toBe(before);
  expect(asked(b)).toBeGreaterThan(10);
});

test("a server that changes its weights is noticed by its fingerprint, and kept out", async () => {
  const [a, b] = [await fake(), await fake()];
  const { model, of } = await connect([a, b]);
  await load(model, 6);
  a.settings.fingerprint = "vllm-0.33.0-ffffffff";
  a.settings.toy = { ...TOY, salt: 2 };
  // This one is answered by whichever; one with the new fingerprint is what gives it away.
  await Promise.allSettled(Array.from({ length: 6 }, (_, i) => sampleAll(model, { promptIds: Int32Array.of(200, i) })));
  await eventually(() => of("opened").length > 0);
  expect(of("opened")[0]).toMatchObject({ where: a.where });
  await load(model, 10);
  expect(of("closed")).toEqual([]);
});

test("a server that is alone may change: what it can do now is published", async () => {
  const server = await fake();
  const { model, of } = await connect([server]);
  expect(model.capabilities.distributions).toBe(false);
  await load(model, 1);
  server.settings.maxLogprobs = -1;
  server.settings.version = "0.34.0";
  await eventually(() => model.capabilities.distributions);
  expect(of("probed")).toMatchObject([{ differs: "it can do other things than before" }]);
  const { entropy } = await score(model, Int32Array.of(1, 2, 3), { entropy: true });
  expect(entropy).toHaveLength(2);
  server.settings.toy = { ...TOY, salt: 2 };
  server.settings.version = "0.35.0";
  await eventually(() => of("probed").length === 2);
  expect(of("probed")[1]!.differs).toMatch(/nats per token from those before/);
});

test("a server that answers nothing at all is noticed by the rounds alone", async () => {
  const [a, b] = [await fake(), await fake()];
  const { model, of } = await connect([a, b]);
  await load(model, 1);
  await a.kill();
  await eventually(() => of("opened").length > 0);
  expect(of("opened")[0]).toMatchObject({ where: a.where, message: "cannot be reached (ECONNREFUSED)" });
  expect(of("failure")).toEqual([]);
  await a.revive();
  await eventually(() => of("closed").length > 0);
  expect(asked(b)).toBeGreaterThanOrEqual(0);
});

test("a text that the caller ends is a success: failures before it count no more", async () => {
  const server = await fake({ tokenMs: 2 });
  const { model, of } = await connect([server]);
  for (let i = 0; i < 4; i++) {
    server.misbehave({ kind: "status", status: 500 }, { times: 1 });
    const [sampled] = await sampleAll(model, { params: { maxTokens: 100 }, shouldStop: (_, ids) => ids.length === 3 });
    expect(sampled).toMatchObject({ reason: "stop", ids: { length: 3 } });
    await eventually(() => server.seen.openStreams === 0);
  }
  expect(of("failure")).toHaveLength(4);
  expect(of("opened")).toEqual([]);
});

test("a server that is started anew with another context is served with that", async () => {
  const server = await fake();
  const { model } = await connect([server]);
  expect(model.contextLength).toBe(256);
  for (const length of [128, 512]) {
    Object.assign(server.settings, { maxModelLen: length });
    await load(model, 1);
    await eventually(() => model.contextLength === length);
  }
  await expect(sampleAll(model, { promptIds: new Int32Array(513) })).rejects.toMatchObject({
    code: "context_length_exceeded",
  });
});

test("probing again, when asked to, finds out what is new, and brings back at once what is well again", async () => {
  const [a, b] = [await fake(), await fake()];
  const { model, of } = await connect([a, b]);
  for (const server of [a, b]) server.settings.lora = true;
  await model.probe();
  expect(model.capabilities.adapters).toBe(true);
  for (const server of [a, b]) server.misbehave({ kind: "status", status: 500 }, { path: /models$/ });
  for (let i = 0; i < 3; i++) await expect(model.probe()).rejects.toMatchObject({ code: "backend_unavailable" });
  expect(model.replicas().map(({ state }) => state)).toEqual(["open", "open"]);
  for (const server of [a, b]) server.behave();
  await model.probe();
  expect(model.replicas()).toMatchObject([
    { where: a.where, state: "up", active: 0 },
    { where: b.where, state: "up", active: 0 },
  ]);
  expect(of("closed").length).toBeGreaterThanOrEqual(2);
});
