/** What a remote model cannot do is refused before anything is asked of its server, and who can is named. */
import { rm } from "node:fs/promises";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { createOpenaiApi } from "../../src/api/openai/compose.ts";
import type { Database } from "../../src/db/database.ts";
import { createApp } from "../../src/http/app.ts";
import { openTestDatabase } from "../db/databases.ts";
import { type FakeOptions, type FakeVllm, startFake } from "../engine/openai/fake-vllm.ts";
import { VOCAB_SIZE } from "./fakes.ts";
import { type Answer, createModelsFixture, type ModelsFixture, modelsDirectory } from "./models-fixture.ts";

let database: Database;
let directory: string;
let fixture: ModelsFixture;
let servers: FakeVllm[] = [];
beforeAll(async () => {
  database = await openTestDatabase();
  directory = await modelsDirectory({ words: "llama" });
});
afterEach(async () => {
  await fixture.close();
  await Promise.all(servers.map((server) => server.close()));
  servers = [];
});
afterAll(async () => {
  await database.close();
  await rm(directory, { recursive: true, force: true });
});

/** Registers a model per server; `post` asks the completions route about them. */
async function use(remotes: Readonly<Record<string, FakeOptions & { tempered?: number }>>) {
  fixture = createModelsFixture({ database, directory, allowedHosts: ["127.0.0.1"] });
  for (const [id, { tempered, ...options }] of Object.entries(remotes)) {
    const lacks = ["tokenize" as const, ...(options.lacks ?? [])];
    const server = await startFake({ ...options, lacks, toy: { vocabSize: VOCAB_SIZE, divisor: tempered ?? 1 } });
    servers.push(server);
    const model = { id, model: `openai+${server.url}#toy`, tokenizer: "words", ...(tempered ? { tempered } : {}) };
    expect((await fixture.call("POST", "/v1/teachers", model)).status).toBe(201);
    server.seen.requests = [];
  }
  const app = createApp({
    routes: [createOpenaiApi({ registry: fixture.registry, now: Date.now, random: Math.random })],
    authenticate: null,
    strictJson: true,
  });
  return async (body: object): Promise<{ status: number; body: Answer }> => {
    const response = await app.request("http://127.0.0.1/v1/completions", {
      method: "POST",
      headers: { "content-type": "application/json", host: "127.0.0.1" },
      body: JSON.stringify({ prompt: [5, 60, 33], max_tokens: 2, ...body }),
    });
    return { status: response.status, body: await response.json() };
  };
}

test("echo with log-probs asks for the prompt's: a model that cannot score it is refused, streamed or not", async () => {
  const post = await use({ blind: { lacks: ["prompt_logprobs"] }, seeing: {} });
  for (const more of [{}, { max_tokens: 0 }, { stream: true }, { logprobs: 0 }]) {
    const { status, body } = await post({ model: "blind", echo: true, logprobs: 2, ...more });
    expect(status).toBe(400);
    expect(body.error).toMatchObject({ code: "unsupported_by_backend", param: "model" });
    expect(body.error.message).toMatch(/^blind cannot report .*; seeing can$/);
  }
  expect(servers[0]!.completions()).toEqual([]);
  // Neither of the two alone asks for that.
  expect((await post({ model: "blind", echo: true })).status).toBe(200);
  expect((await post({ model: "blind", logprobs: 2 })).status).toBe(200);
  expect((await post({ model: "seeing", echo: true, logprobs: 2 })).status).toBe(200);
});

test("both temperatures count where echo and prompt_logprobs are asked for", async () => {
  const post = await use({ cool: { tempered: 0.7 } });
  const cool = { model: "cool", prompt_logprobs: 1, prompt_logprobs_temperature: 0.7 };
  expect((await post(cool)).status).toBe(200);
  const { body } = await post({ ...cool, echo: true, logprobs: 1 });
  expect(body.error).toMatchObject({ code: "unsupported_by_backend", param: "model" });
  expect(body.error.message).toMatch(/^cool cannot report log-probs at temperature 1 exactly; .*without tempered$/);
});
