import { afterAll, beforeAll, expect, test } from "vitest";
import type { Database } from "../../src/db/database.ts";
import type { RequestOptions } from "../../src/engine/engine.ts";
import { createLifecycle } from "../../src/http/lifecycle.ts";
import { startServer } from "../../src/http/server.ts";
import { openTestDatabase } from "../db/databases.ts";
import { busyFixture, CHAT, COMPLETE, EXPLAIN, SCORE, type Sender } from "./busy-fixture.ts";

let database: Database;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(async () => {
  await database.close();
});

const keys: Record<string, string> = { first: "key_1", second: "key_2" };
const authenticate = (key: string) =>
  keys[key] ? { id: keys[key], scopes: new Set(["explain", "score"] as const) } : null;

/** All requests that the engines were given since the last look. */
function watch({ teacher, student }: ReturnType<typeof busyFixture>): () => RequestOptions[] {
  const lists = [teacher.samples, teacher.scored, teacher.distributed, student.scored];
  return () => lists.flatMap((list: RequestOptions[]) => list.splice(0));
}

const full = { ...SCORE, kl: { estimator: "full" }, include: ["baseline", "progress"] };
const ranked = { ...EXPLAIN, rank_by: { student: "student", kl: { estimator: "topk_tail" } } };
const scored = { ...COMPLETE, prompt_logprobs: 1 };

test("every engine call knows whose key it was made for", async () => {
  const fixture = busyFixture(database, { authenticate });
  const taken = watch(fixture);
  for (const [path, body, least] of [
    ["explanations", ranked, 4],
    ["explanations", { ...EXPLAIN, stream: true }, 1],
    ["scores", full, 6],
    ["completions", scored, 2],
    ["completions", { ...scored, stream: true }, 2],
    ["chat/completions", CHAT, 1],
  ] as const) {
    for (const key of ["first", "second"]) {
      const response = await fixture.send(path, body, { key });
      expect(response.status, path).toBe(200);
      await response.text();
      const calls = taken();
      expect(calls.length, path).toBeGreaterThanOrEqual(least);
      for (const call of calls) expect(call, path).toMatchObject({ client: keys[key], priority: "interactive" });
    }
  }
});

test.each<[string, object, Sender, string]>([
  ["a key and the user it is used for", { user: "ada" }, { key: "first", address: "10.0.0.1" }, "key_1/ada"],
  ["a key without a user", { user: null }, { key: "first", address: "10.0.0.1" }, "key_1"],
])("%s", async (_, more, sender, client) => {
  const fixture = busyFixture(database, { authenticate });
  const taken = watch(fixture);
  for (const [path, body] of [
    ["completions", scored],
    ["chat/completions", CHAT],
  ] as const) {
    await fixture.json(path, { ...body, ...more }, sender);
    expect(taken().every((call) => call.client === client)).toBe(true);
  }
});

test("without keys it is the address of the connection; what a caller writes about itself does not count", async () => {
  const fixture = busyFixture(database);
  const taken = watch(fixture);
  for (const [sender, client] of [
    [{ address: "127.0.0.1" }, "127.0.0.1"],
    [{ address: "::1" }, "::1"],
    [{}, "local"],
  ] as const) {
    await fixture.json("chat/completions", { ...CHAT, user: "ada" }, sender);
    await fixture.json("scores", SCORE, sender);
    await fixture.json("explanations", EXPLAIN, sender);
    expect(new Set(taken().map((call) => call.client)), client).toEqual(new Set([client]));
  }
});

test("a server sees the address of the socket, whatever the headers say", async () => {
  const fixture = busyFixture(database);
  const lifecycle = createLifecycle();
  const server = await startServer(fixture.app, { host: "127.0.0.1", port: 0, lifecycle });
  const headers = { "content-type": "application/json", "x-forwarded-for": "10.0.0.1" };
  await fetch(`${server.url}/v1/chat/completions`, { method: "POST", headers, body: JSON.stringify(CHAT) });
  await server.close(0);
  expect(fixture.teacher.samples).toMatchObject([{ client: "127.0.0.1" }]);
});

test("what runs in the background goes behind what somebody waits for, and keeps its client over a restart", async () => {
  const fixture = busyFixture(database, { authenticate, background: { places: 0 } });
  const taken = watch(fixture);
  const { id, sampling } = await fixture.json("explanations", { ...ranked, background: true }, { key: "second" });
  expect(sampling).not.toHaveProperty("client");
  await fixture.service.close();
  expect(taken()).toEqual([]);

  const next = busyFixture(database, { authenticate });
  const begun = watch(next);
  await next.service.settleInterrupted({ exclusive: true });
  await expect.poll(async () => (await next.service.get(id)).status).toBe("completed");
  const calls = begun();
  expect(calls.length).toBeGreaterThanOrEqual(4);
  for (const call of calls) expect(call).toMatchObject({ client: "key_2", priority: "job" });
});
