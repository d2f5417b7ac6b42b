/** How long the engine waits for servers that are silent, busy or gone, and what it says when it has waited enough. */
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test, vi } from "vitest";
import { attempt } from "../../../src/engine/openai/attempt.ts";
import { createConnection } from "../../../src/engine/openai/connection.ts";
import { RemoteFailure } from "../../../src/engine/openai/failure.ts";
import { MAX_ACTIVE_PER_REPLICA, WAIT_FOR_REPLICA_MS } from "../../../src/engine/openai/limits.ts";
import { createPool } from "../../../src/engine/openai/pool.ts";
import type { Remote } from "../../../src/engine/openai/remote.ts";
import { createReplica } from "../../../src/engine/openai/replica.ts";
import { connect, eventually, fake, farthest, PROMPT, sampleAll, score } from "./fixture.ts";
import { drawIds, ownLogprobs, TOY } from "./toy-model.ts";

vi.mock("../../../src/engine/openai/limits.ts", async (original) => {
  const { IMPATIENT } = await import("./quick-limits.ts");
  return { ...(await original<object>()), ...IMPATIENT };
});

test("a server that never answers is given up, and another one answers", async () => {
  const [a, b] = [await fake(), await fake()];
  const { model, of } = await connect([a, b]);
  a.misbehave({ kind: "hang" }, { times: 1 });
  const [sampled] = await sampleAll(model);
  expect(sampled!.ids).toEqual(drawIds(TOY, PROMPT, { seed: 1 }, 12));
  await eventually(() => a.seen.requests.some(({ path }) => path === "/v1/completions"));
  for (const server of [a, b]) server.misbehave({ kind: "hang" }, { times: 1 });
  const { logprobs } = await score(model, PROMPT);
  expect(farthest(logprobs, ownLogprobs(TOY, PROMPT))).toBeLessThan(1e-6);
  expect(of("failure").length).toBeGreaterThanOrEqual(2);
  for (const failure of of("failure")) expect(failure).toMatchObject({ failure: "unreachable", retried: true });
});

test("a stream that falls silent is given up and goes on elsewhere", async () => {
  const [a, b] = [await fake(), await fake()];
  const { model, of } = await connect([a, b]);
  let tokens = 0;
  const [sampled] = await sampleAll(model, { params: { maxTokens: 20 } }, ({ type }) => {
    if (type === "token" && ++tokens === 5) a.settings.tokenMs = 5000;
  });
  expect(sampled!.reason).toBe("length");
  expect(sampled!.ids.slice(0, 5)).toEqual(drawIds(TOY, PROMPT, { seed: 1 }, 5));
  const { prompt, seed } = b.completions()[0]!.body;
  expect(prompt).toEqual([...PROMPT, ...sampled!.ids.slice(0, prompt!.length - PROMPT.length)]);
  const rest = PROMPT.length + 20 - prompt!.length;
  expect(sampled!.ids.slice(20 - rest)).toEqual(drawIds(TOY, prompt!, { seed: seed! }, rest));
  expect(of("failure")).toMatchObject([
    { failure: "unreachable", message: expect.stringMatching(/^sent nothing for/) },
  ]);
  await eventually(() => a.seen.disconnects === 1);
});

test("a server that talks nonsense only is given up", async () => {
  const server = await fake();
  const { model, of } = await connect([server]);
  server.misbehave({ kind: "not-json" });
  await expect(score(model, PROMPT)).rejects.toMatchObject({ code: "backend_unavailable" });
  expect(of("failure")).toHaveLength(3);
  expect(of("failure")[0]!.message).toBe('answered "upstream connect error", which is not JSON');
  expect(of("opened")[0]!.message).toBe(of("failure")[0]!.message);
});

const PAUSES: readonly [form: string, retryAfter: () => string, seconds: number][] = [
  ["seconds", () => "30", 30],
  ["a date", () => new Date(Date.now() + 90_000).toUTCString(), 90],
];

test.each(PAUSES)(
  "a longer pause than clients want to wait is passed on to them: %s",
  async (_, retryAfter, seconds) => {
    const server = await fake();
    const { model } = await connect([server]);
    server.misbehave({ kind: "status", status: 429, retryAfter: retryAfter() }, { times: 1 });
    const started = performance.now();
    const refusal = await score(model, PROMPT).catch((error: unknown) => error);
    expect(refusal).toMatchObject({ code: "overloaded" });
    expect(Math.abs((refusal as { retryAfterSeconds: number }).retryAfterSeconds - seconds)).toBeLessThanOrEqual(1);
    expect(performance.now() - started).toBeLessThan(2000);
    // Who comes after it finds the server paused, and does not wait for half a minute either.
    await expect(score(model, PROMPT)).rejects.toMatchObject({ code: "backend_unavailable" });
  },
);

test("a server that is alone and dead is unavailable, with a time to come back", async () => {
  const server = await fake();
  const { model, of } = await connect([server]);
  await server.kill();
  const reasons: string[] = [];
  const sampling = sampleAll(model, {}, (event) => event.type === "queued" && reasons.push(event.reason));
  const refusals = await Promise.allSettled([sampling, score(model, PROMPT)]);
  for (const refusal of refusals) {
    expect(refusal).toMatchObject({ status: "rejected", reason: { code: "backend_unavailable" } });
    const { message, retryAfterSeconds } = (refusal as { reason: { message: string; retryAfterSeconds: number } })
      .reason;
    expect(message).toContain(server.where);
    expect(retryAfterSeconds).toBeGreaterThanOrEqual(1);
  }
  expect(reasons).toContain("backend");
  expect(of("failure").every(({ failure }) => failure === "unreachable")).toBe(true);
  expect(of("opened").length).toBeGreaterThan(0);
});

test("a trial that falls into another look at the server is not lost", async () => {
  const [a, b] = [await fake(), await fake()];
  const { model, of } = await connect([a, b]);
  // The round's question hangs while requests open the breaker, and the trial comes before it is given up.
  a.misbehave({ kind: "hang" }, { path: /models$/, times: 1 });
  const before = a.seen.requests.filter(({ path }) => path.endsWith("models")).length;
  await sampleAll(model);
  await eventually(() => a.seen.requests.filter(({ path }) => path.endsWith("models")).length > before);
  a.misbehave({ kind: "status", status: 500 }, { times: 6 });
  await Promise.all(Array.from({ length: 12 }, (_, i) => sampleAll(model, { promptIds: Int32Array.of(3, i) })));
  await eventually(() => of("opened").length > 0);
  await eventually(() => of("closed").length > 0);
  expect(of("opened")[0]!.where).toBe(a.where);
});

const now = (): number => performance.now();
const silent = (host: string) => {
  const send = () => Promise.reject(new Error("nothing is sent here"));
  return createReplica(createConnection({ send, baseUrl: `http://${host}/v1`, key: undefined }), now);
};
const asking = {
  client: "",
  priority: "interactive",
  kind: "sample",
  prefix: Int32Array.of(1),
  signal: undefined,
} as const;

test("the wait for a server begins when the last one goes, however long the request had waited for a slot", async () => {
  const replica = silent("a");
  const pool = createPool([replica], now);
  const lease = (sequences: number) => pool.lease({ ...asking, sequences, avoid: new Set() });
  const full = await lease(MAX_ACTIVE_PER_REPLICA);
  const waiting = lease(1).then(
    () => 0,
    () => now(),
  );
  await sleep(WAIT_FOR_REPLICA_MS * 0.75);
  for (let i = 0; i < 3; i++) replica.failed(new RemoteFailure("failed", "answered 500"));
  const gone = now();
  pool.wake();
  expect((await waiting) - gone).toBeGreaterThan(WAIT_FOR_REPLICA_MS * 0.9);
  full.release();
});

test("a server that asks for a long pause is no reason to give up while another is back in a moment", async () => {
  const replicas = [silent("a"), silent("b")];
  const remote = {
    options: { name: "toy" },
    pool: createPool(replicas, now),
    observe: () => undefined,
    now,
  } as unknown as Remote;
  const pauses = [100, 30_000];
  const tried: string[] = [];
  await attempt(remote, { ...asking, adapter: null, sequences: () => 1 }, async ({ replica }) => {
    tried.push(replica.connection.where);
    const retryAfterMs = pauses.shift();
    if (retryAfterMs !== undefined) throw new RemoteFailure("busy", "answered 429", { retryAfterMs });
  });
  expect(tried).toHaveLength(3);
  expect(tried[2]).toBe(tried[0]);
});
