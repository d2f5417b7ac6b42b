import { afterAll, beforeAll, expect, test } from "vitest";
import type { Database } from "../../src/db/database.ts";
import { type ErrorCode, fail } from "../../src/errors.ts";
import { openTestDatabase } from "../db/databases.ts";
import { busyFixture, CHAT, COMPLETE, dataOf, EXPLAIN, type Json, SCORE } from "./busy-fixture.ts";

let database: Database;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(async () => {
  await database.close();
});

const QUEUE = [
  { position: 3, reason: "slots" },
  { position: 1, reason: "turn" },
] as const;

test("a stream of an explanation says where it stands, before its first word and after it was created", async () => {
  const { text } = busyFixture(database, { teacher: { queue: QUEUE } });
  const events = dataOf(await text("explanations", { ...EXPLAIN, stream: true }));
  expect(events.slice(0, 4)).toMatchObject([
    { type: "explanation.created" },
    { type: "explanation.queued", ...QUEUE[0] },
    { type: "explanation.queued", ...QUEUE[1] },
    { type: "explanation.delta" },
  ]);
  expect(events.at(-1)).toMatchObject({ type: "explanation.completed", explanation: { status: "completed" } });
  expect(events.at(-1).explanation).not.toHaveProperty("queue");
});

test.each([
  ["completions", COMPLETE],
  ["chat/completions", CHAT],
])("streams of /v1/%s say so in comments, which change nothing for their readers", async (path, body) => {
  const request = { ...body, seed: 1, stream: true, stream_options: { include_usage: true } };
  const free = await busyFixture(database).text(path, request);
  const busy = await busyFixture(database, { teacher: { queue: QUEUE } }).text(path, request);
  expect(free).not.toMatch(/^:/m);
  expect(busy.split("\n\n").slice(0, 2)).toEqual([
    ": queued position=3 reason=slots",
    ": queued position=1 reason=turn",
  ]);
  const choices = (stream: string) => dataOf(stream).map((chunk) => chunk.choices);
  expect(choices(busy)).toEqual(choices(free));
});

test("usage counts the tokens that the prefix cache had, on every route", async () => {
  const { json, text } = busyFixture(database, { teacher: { cachedTokens: 2 }, student: { cachedTokens: 1 } });
  const made = await json("explanations", EXPLAIN);
  expect(made.usage).toMatchObject({ cached_tokens: 2, scored_tokens: 0 });
  expect((await json(`explanations/${made.id}`)).usage.cached_tokens).toBe(2);

  // Two items by teacher and student; with `baseline` the student reads each once more.
  const items = [SCORE.items[0], SCORE.items[0]];
  expect((await json("scores", { ...SCORE, items })).usage).toMatchObject({ cached_tokens: 2 * (2 + 1) });
  const include = ["baseline"];
  expect((await json("scores", { ...SCORE, items, include })).usage).toMatchObject({ cached_tokens: 2 * (2 + 1 + 1) });

  for (const [path, body, tokens] of [
    ["chat/completions", { ...CHAT, n: 3 }, 2],
    ["completions", COMPLETE, 2],
    ["completions", { ...COMPLETE, prompt: ["one", "two"] }, 4],
    // Scored and then sampled from: the cache's second hit is the request's own.
    ["completions", { ...COMPLETE, prompt_logprobs: 1 }, 2],
    ["completions", { ...COMPLETE, prompt_logprobs: 1, max_tokens: 0 }, 2],
  ] as const) {
    const usage = (await json(path, body)).usage;
    expect(usage.prompt_tokens_details, JSON.stringify(body)).toEqual({ cached_tokens: tokens });
    const request = { ...body, stream: true, stream_options: { include_usage: true } };
    expect(dataOf(await text(path, request)).at(-1).usage).toMatchObject({
      prompt_tokens_details: { cached_tokens: tokens },
    });
  }
});

const refusal = (code: ErrorCode) => () => fail(code, "too much at once", { retryAfterSeconds: 7.2 });
const wanting = [
  ["explanations", "sample", EXPLAIN],
  ["completions", "sample", COMPLETE],
  ["completions", "logprobs", { ...COMPLETE, prompt_logprobs: 1 }],
  ["chat/completions", "sample", CHAT],
  ["scores", "logprobs", SCORE],
] as const;

test.each([
  ["queue_full", 429, "rate_limit_error"],
  ["overloaded", 503, "unavailable_error"],
] as const)("%s is an answer with its status and Retry-After, streamed or not", async (code, status, type) => {
  const refuse = refusal(code);
  const { send, json, registry } = busyFixture(database, { teacher: { refuse }, student: { refuse } });
  const before = (await json("explanations?limit=100")).data.length;
  for (const [path, , body] of wanting) {
    for (const stream of path === "scores" ? [undefined] : [false, true]) {
      const response = await send(path, { ...body, ...(stream === undefined ? {} : { stream }) });
      expect(response.status, `${path} ${stream}`).toBe(status);
      expect(response.headers.get("retry-after")).toBe("8");
      expect(await response.json()).toMatchObject({ error: { code, type, message: "too much at once" } });
    }
  }
  expect(registry.held()).toBe(0);
  // What was refused was never begun: asking again and again leaves no rows behind.
  expect((await json("explanations?limit=100")).data).toHaveLength(before);
});

test("one item that an engine refuses ends the request: it is not the item's fault", async () => {
  let calls = 0;
  const refuse = () => (++calls === 3 ? refusal("queue_full")() : undefined);
  const { send, registry } = busyFixture(database, { student: { refuse } });
  const response = await send("scores", { ...SCORE, items: Array(6).fill(SCORE.items[0]) });
  expect([response.status, response.headers.get("retry-after")]).toEqual([429, "8"]);
  expect(registry.held()).toBe(0);
});

test("a stream that has begun ends with the error; what was written before the ranking is kept", async () => {
  const { text, json, registry } = busyFixture(database, { student: { refuse: refusal("overloaded") } });
  const events = dataOf(await text("explanations", { ...EXPLAIN, stream: true, rank_by: { student: "student" } }));
  expect(events.at(-1)).toMatchObject({ type: "error", error: { code: "overloaded", type: "unavailable_error" } });
  expect(await json(`explanations/${events[0].explanation.id}`)).toMatchObject({
    status: "failed",
    error: { code: "overloaded" },
    choices: [{ explanation: "Add them." }],
  });
  expect(registry.held()).toBe(0);

  // The second prompt goes to the engine when the first is done.
  let calls = 0;
  const second = busyFixture(database, {
    teacher: { refuse: () => (++calls > 1 ? refusal("queue_full")() : undefined) },
  });
  const stream = await second.text("completions", { ...COMPLETE, prompt: ["one", "two"], n: 64, stream: true });
  expect(dataOf(stream).at(-1)).toMatchObject({ error: { code: "queue_full" } });
  expect(stream).not.toContain("[DONE]");
});

test("a long list of prompts is given to the engine in portions, and comes back whole", async () => {
  const active: number[] = [];
  const { json, teacher } = busyFixture(database, {
    teacher: { tokenDelayMs: 1, refuse: () => void active.push(teacher.load().active) },
  });
  const prompt = Array.from({ length: 150 }, (_, i) => `question ${i}`);
  const body = await json("completions", { ...COMPLETE, prompt, n: 2, max_tokens: 2 });
  expect(body.choices.map((choice: Json) => choice.index)).toEqual([...Array(300).keys()]);
  expect(body.choices.every((choice: Json) => choice.text === "Ad")).toBe(true);
  expect(Math.max(...active)).toBe(62);
});
