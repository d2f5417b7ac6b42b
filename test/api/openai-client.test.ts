/** The official client, unchanged, against a listening server. */
import OpenAI, {
  APIError,
  APIUserAbortError,
  AuthenticationError,
  BadRequestError,
  InternalServerError,
  NotFoundError,
  RateLimitError,
} from "openai";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createOpenaiApi } from "../../src/api/openai/compose.ts";
import { fail } from "../../src/errors.ts";
import { createApp } from "../../src/http/app.ts";
import { createKeyAuthenticator } from "../../src/http/auth.ts";
import { createLifecycle } from "../../src/http/lifecycle.ts";
import { type RunningServer, startServer } from "../../src/http/server.ts";
import { createFakeRegistry } from "./fake-registry.ts";
import { createFakeEngine, encodePlain } from "./fakes.ts";

const KEY = "sk-a-key-for-this-test-only";
const SAYS = "because the teacher says 😀";

const engine = createFakeEngine({ script: () => encodePlain(SAYS) });
// Its text goes on until somebody ends it: drawn at random it might end its turn before the client leaves.
const slow = createFakeEngine({
  tokenDelayMs: 10,
  contextLength: 5000,
  script: () => encodePlain("word ".repeat(900)),
});
const broken = createFakeEngine({ failAfterTokens: 3, script: () => encodePlain("one two three") });
const waiting = createFakeEngine({
  script: () => encodePlain(SAYS),
  queue: [{ position: 2, reason: "slots" }],
  cachedTokens: 3,
});
let refusals = 0;
const full = createFakeEngine({
  script: () => encodePlain(SAYS),
  refuse: () => (refusals++ === 0 ? fail("queue_full", "too much at once", { retryAfterSeconds: 1 }) : undefined),
});
const engines = { fake: engine, slow, broken, waiting, full };
const registry = createFakeRegistry(
  Object.fromEntries(Object.entries(engines).map(([id, engine]) => [id, { engine }])),
);

let server: RunningServer;
let client: OpenAI;
beforeAll(async () => {
  const lifecycle = createLifecycle();
  const app = createApp({
    routes: [createOpenaiApi({ registry, now: Date.now, random: Math.random })],
    authenticate: createKeyAuthenticator(KEY),
    lifecycle,
    strictJson: true,
  });
  server = await startServer(app, { host: "127.0.0.1", port: 0, lifecycle });
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: KEY, maxRetries: 0 });
});
afterAll(() => server.close(0));

const messages = [{ role: "user" as const, content: "Why?" }];

test("completions, plain and streamed", async () => {
  const plain = await client.completions.create({ model: "fake", prompt: "Why?", max_tokens: 40, logprobs: 1 });
  expect(plain.choices[0]!.text).toBe(SAYS);
  expect(plain.choices[0]!.logprobs!.tokens).toContain("teacher");
  const stream = await client.completions.create({ model: "fake", prompt: "Why?", max_tokens: 40, stream: true });
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]!.text;
  expect(text).toBe(SAYS);
});

test("chats, plain and streamed, with usage", async () => {
  const plain = await client.chat.completions.create({ model: "fake", messages });
  expect(plain.choices[0]!.message.content).toBe(SAYS);
  expect(plain.choices[0]!.finish_reason).toBe("stop");
  const stream = await client.chat.completions.create({
    model: "fake",
    messages,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let usage: OpenAI.CompletionUsage | null | undefined;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage;
  }
  expect(text).toBe(SAYS);
  expect(usage).toEqual(plain.usage);
});

test("the client's stream helper puts the chunks together", async () => {
  const final = await client.chat.completions
    .stream({ model: "fake", messages, logprobs: true, top_logprobs: 1 })
    .finalChatCompletion();
  expect(final.choices[0]!.message.content).toBe(SAYS);
  expect(final.choices[0]!.logprobs!.content).toHaveLength(encodePlain(SAYS).length + 1);
});

test("models", async () => {
  const ids: string[] = [];
  for await (const model of client.models.list()) ids.push(model.id);
  expect(ids).toEqual(Object.keys(engines));
  expect((await client.models.retrieve("slow")).object).toBe("model");
});

test("leaving a stream reaches the engine's signal within a second", async () => {
  const before = slow.aborted();
  const stream = await client.chat.completions.create({ model: "slow", messages, n: 2, stream: true });
  let chunks = 0;
  for await (const _ of stream) if (++chunks === 6) break;
  await expect.poll(() => slow.aborted(), { timeout: 1000, interval: 10 }).toBe(before + 2);
  await expect.poll(() => registry.held(), { timeout: 1000 }).toBe(0);
  expect(slow.samples.at(-1)!.signal!.aborted).toBe(true);
});

test("aborting a plain request reaches the engine's signal within a second", async () => {
  const before = slow.aborted();
  const controller = new AbortController();
  const options = { signal: controller.signal };
  const answer = client.completions.create({ model: "slow", prompt: "x", max_tokens: 4000 }, options);
  await expect.poll(() => slow.load().active).toBe(1);
  controller.abort();
  await expect(answer).rejects.toBeInstanceOf(APIUserAbortError);
  await expect.poll(() => slow.aborted(), { timeout: 1000, interval: 10 }).toBe(before + 1);
  await expect.poll(() => registry.held(), { timeout: 1000 }).toBe(0);
});

test("errors become the client's classes", async () => {
  const missing = client.chat.completions.create({ model: "nobody", messages });
  await expect(missing).rejects.toBeInstanceOf(NotFoundError);
  await expect(missing).rejects.toMatchObject({ status: 404, code: "model_not_found", param: "model" });

  const bad = client.chat.completions.create({ model: "fake", messages, presence_penalty: 1, stream: true });
  await expect(bad).rejects.toBeInstanceOf(BadRequestError);
  await expect(bad).rejects.toMatchObject({ code: "unsupported_parameter", type: "invalid_request_error" });

  const stranger = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "wrong", maxRetries: 0 });
  await expect(stranger.models.list()).rejects.toBeInstanceOf(AuthenticationError);

  const failing = client.completions.create({ model: "broken", prompt: "x" });
  await expect(failing).rejects.toBeInstanceOf(InternalServerError);
});

test("an error in mid-stream is raised by the client's loop", async () => {
  const stream = await client.chat.completions.create({ model: "broken", messages, stream: true });
  let text = "";
  const reading = (async () => {
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
  })();
  await expect(reading).rejects.toBeInstanceOf(APIError);
  await expect(reading).rejects.toMatchObject({ code: "engine_failed" });
  expect(text).toBe("one");
  expect(registry.held()).toBe(0);
});

test("a stream that waits for its turn reads like any other, and says what the cache had", async () => {
  const options = { model: "waiting", messages, stream: true, stream_options: { include_usage: true } } as const;
  let text = "";
  let cached: number | undefined;
  for await (const chunk of await client.chat.completions.create(options)) {
    text += chunk.choices[0]?.delta.content ?? "";
    cached = chunk.usage?.prompt_tokens_details?.cached_tokens;
  }
  expect([text, cached]).toEqual([SAYS, 3]);
});

test("a full queue is a RateLimitError; the client comes back when it was told to", async () => {
  const request = { model: "full", messages, stream: true } as const;
  const refused = await client.chat.completions.create(request).catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(RateLimitError);
  expect((refused as RateLimitError).headers?.get("retry-after")).toBe("1");
  refusals = 0;
  const begin = performance.now();
  await client.chat.completions.create(request, { maxRetries: 1 });
  expect(performance.now() - begin).toBeGreaterThan(900);
  expect(refusals).toBe(2);
});
