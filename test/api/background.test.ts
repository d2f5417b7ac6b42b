import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { Database } from "../../src/db/database.ts";
import type { RequestOptions } from "../../src/engine/engine.ts";
import { fail } from "../../src/errors.ts";
import { openTestDatabase } from "../db/databases.ts";
import { type BusyOptions, busyFixture, EXPLAIN, type Json } from "./busy-fixture.ts";
import { encodePlain } from "./fakes.ts";

let database: Database;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(async () => {
  await database.close();
});

let fixture: ReturnType<typeof busyFixture>;
afterEach(async () => {
  const { data } = await fixture.json("explanations?limit=100", undefined, { key: "a" });
  for (const { id } of data) await fixture.service.remove(id);
  await fixture.service.close();
});

/** Writes until it is cancelled. */
const endless = { tokenDelayMs: 5, script: () => encodePlain("word ".repeat(2_000)) };
const authenticate = (key: string) => ({ id: key, scopes: new Set(["explain"] as const) });

function use(options: BusyOptions) {
  fixture = busyFixture(database, { authenticate, ...options });
  const create = (key = "a"): Promise<Json> => fixture.json("explanations", { ...EXPLAIN, background: true }, { key });
  const get = (id: string): Promise<Json> => fixture.json(`explanations/${id}`, undefined, { key: "a" });
  const cancel = (id: string): Promise<Json> => fixture.json(`explanations/${id}/cancel`, {}, { key: "a" });
  return { create, get, cancel };
}

test("few run at once; the others hold no model and see where they stand, each client in turn", async () => {
  const { create, get, cancel } = use({ teacher: endless, background: { places: 2 } });
  const mine: Json[] = [];
  for (let i = 0; i < 5; i++) mine.push(await create("a"));
  const theirs = await create("b");
  await expect.poll(() => fixture.teacher.load().active).toBe(2);
  expect(fixture.registry.held()).toBe(2);
  expect(fixture.service.waiting()).toBe(4);

  expect(mine[0]).not.toHaveProperty("queue");
  expect(mine[2]).toMatchObject({ status: "queued", queue: { position: 1, reason: "background" } });
  const positions = async () => {
    const seen = await Promise.all([...mine, theirs].map(async ({ id }) => (await get(id)).queue?.position));
    const { data } = await fixture.json("explanations?limit=100", undefined, { key: "a" });
    expect([...mine, theirs].map(({ id }) => data.find((row: Json) => row.id === id).queue?.position)).toEqual(seen);
    return seen;
  };
  // The other client came last and has nothing under way: it is next.
  expect(await positions()).toEqual([undefined, undefined, 2, 3, 4, 1]);
  await cancel(mine[2].id);
  expect(await positions()).toEqual([undefined, undefined, undefined, 2, 3, 1]);
  expect(await get(mine[2].id)).toMatchObject({ status: "cancelled", choices: [] });
  await cancel(mine[0].id);
  expect(await positions()).toEqual([undefined, undefined, undefined, 1, 2, undefined]);
  await expect.poll(async () => (await get(theirs.id)).status).toBe("in_progress");
  expect(fixture.registry.held()).toBe(2);
});

test("beyond the limit the next one is told when to come back, and nothing of it is kept", async () => {
  const { create, cancel } = use({ teacher: endless, background: { places: 1, waiting: 2 } });
  const accepted = [await create(), await create(), await create()];
  const request = { ...EXPLAIN, background: true };
  const full = await fixture.send("explanations", request, { key: "b" });
  expect(full.status).toBe(429);
  expect(Number(full.headers.get("retry-after"))).toBeGreaterThan(0);
  expect(await full.json()).toMatchObject({ error: { code: "queue_full", type: "rate_limit_error" } });
  // Somebody who waits for the answer is not behind this queue.
  expect((await fixture.json("explanations", { ...EXPLAIN, max_tokens: 2 }, { key: "b" })).status).toBe("completed");
  await cancel(accepted[2].id);
  const many = await Promise.all([1, 2, 3, 4].map(() => fixture.send("explanations", request, { key: "b" })));
  expect(many.map(({ status }) => status).sort()).toEqual([202, 429, 429, 429]);
});

test.each([
  ["queue_full", "sample"],
  ["overloaded", "logprobs"],
] as const)("what an engine refuses with %s comes back until it is taken (%s)", async (code, kind) => {
  let refusals = 0;
  const refuse = (asked: "sample" | "logprobs") =>
    asked === kind && refusals++ < 2 ? fail(code, "busy", { retryAfterSeconds: 0.05 }) : undefined;
  const { get } = use({ teacher: { refuse }, student: { refuse } });
  const request = { ...EXPLAIN, background: true, rank_by: { student: "student" } };
  const { id } = await fixture.json("explanations", request, { key: "a" });
  await expect.poll(async () => (await get(id)).status).toBe("completed");
  expect(await get(id)).toMatchObject({ best: 0, choices: [{ explanation: "Add them.", score: { object: "score" } }] });
  expect(refusals).toBeGreaterThan(2);
  // A text that was written is not written again because its scoring had to wait.
  expect(fixture.teacher.samples).toHaveLength(kind === "sample" ? 3 : 1);
  expect(fixture.registry.held()).toBe(0);
});

test("one that was put off says why, and leaves its place to others meanwhile", async () => {
  let busy = true;
  const refuse = (_: string, { client }: RequestOptions) =>
    busy && client === "a" ? fail("overloaded", "busy", { retryAfterSeconds: 0.05 }) : undefined;
  const { create, get } = use({ teacher: { refuse }, background: { places: 1 } });
  const first = await create("a");
  const second = await create("b");
  await expect.poll(async () => get(first.id)).toMatchObject({ queue: { position: 1, reason: "overloaded" } });
  await expect.poll(async () => (await get(second.id)).status).toBe("completed");
  expect((await get(first.id)).status).toBe("in_progress");
  busy = false;
  await expect.poll(async () => (await get(first.id)).status).toBe("completed");
});

test("one that waits in the engine says so", async () => {
  const queue = [{ position: 2, reason: "memory" }] as const;
  const { create, get, cancel } = use({ teacher: { ...endless, queue, queueMs: 10_000 } });
  const { id } = await create();
  await expect.poll(async () => get(id)).toMatchObject({ status: "in_progress", queue: queue[0] });
  expect((await cancel(id)).status).toBe("cancelled");
  expect(await get(id)).not.toHaveProperty("queue");
});
