/** What probing finds out about servers, and which servers are no replicas of each other. */
import { expect, test } from "vitest";
import type { Capabilities } from "../../../src/engine/engine.ts";
import { createOpenAiEngine } from "../../../src/engine/openai/engine.ts";
import type { Feature } from "./fake-vllm.ts";
import { connect, eventually, fake, PROBE, PROMPT, sampleAll, score } from "./fixture.ts";
import { drawIds, TOY } from "./toy-model.ts";

const VLLM: Capabilities = {
  sample: true,
  logprobs: true,
  exact_temperatures: [1],
  topk: true,
  at_ids: false,
  distributions: false,
  adapters: false,
  train: false,
  batch_invariant: false,
};

const ALL_ROWS = { exact_temperatures: null, at_ids: true, distributions: true };
const NO_SCORES = { logprobs: false, exact_temperatures: [], topk: false };

test("each server is found able to do what it can", async () => {
  const lacking = (...lacks: Feature[]) => ({ lacks });
  for (const [options, differences] of [
    [{}, {}],
    [{ lora: true }, { adapters: true }],
    [{ maxLogprobs: -1 }, ALL_ROWS],
    [{ maxLogprobs: -1, toy: { vocabSize: 9000 } }, {}],
    [{ maxLogprobs: 5 }, {}],
    [{ maxLogprobs: 1 }, { topk: false }],
    [{ preceptor: true }, { exact_temperatures: null }],
    [lacking("prompt_logprobs"), NO_SCORES],
    [lacking("token_ids"), {}],
    [lacking("token_ids", "named_tokens"), { sample: false }],
    [lacking("n"), {}],
    [lacking("version", "tokenize"), {}],
  ] as const) {
    const server = await fake(options);
    const { model } = await connect([server]);
    expect(model.capabilities, JSON.stringify(options)).toEqual({ ...VLLM, ...differences });
    expect(model).toMatchObject({ precision: null, contextLength: 256, weights: { key: "toy", bytes: 0 } });
    expect(model.memoryBytes()).toBe(0);
  }
});

test("probing takes a handful of requests of a few tokens", async () => {
  const server = await fake();
  const before = server.seen.requests;
  await connect([server]);
  expect(before.length).toBeGreaterThan(5);
  expect(before.length).toBeLessThan(15);
  for (const { path, body } of before) if (path === "/v1/completions") expect(body.max_tokens).toBeLessThanOrEqual(2);
});

test("few alternatives are used where many are not allowed", async () => {
  const { model } = await connect([await fake({ maxLogprobs: 5 })]);
  const { topIds } = await score(model, PROMPT, { topK: 5 });
  expect(topIds).toHaveLength(5 * 7);
  await expect(score(model, PROMPT, { topK: 6 })).rejects.toMatchObject({ code: "unsupported_by_backend" });
  const { errorBound } = await score(model, PROMPT, { temperature: 0.7 });
  expect(errorBound!.every((bound) => bound > 0)).toBe(true);
  const [sampled] = await sampleAll(model, { params: { temperature: 0.7 } });
  expect(sampled!.bounds.every((bound) => bound! > 0)).toBe(true);
});

test("plain and scaled log-probs of samples are told apart, however sure the model is of its token", async () => {
  for (const divisor of [1, 0.3, 0.1]) {
    for (const logprobsMode of ["raw_logprobs", "processed_logprobs"] as const) {
      for (const salt of [1, 2, 3]) {
        const { model } = await connect([await fake({ logprobsMode, toy: { divisor, salt } })]);
        const params = { temperature: 0.5, maxTokens: 1 };
        const [{ bounds }] = (await sampleAll(model, { params })) as [Awaited<ReturnType<typeof sampleAll>>[number]];
        // Only plain ones have to be rescaled.
        const expected = logprobsMode === "raw_logprobs" ? expect.any(Number) : undefined;
        expect(bounds[0], `${divisor} ${logprobsMode} ${salt}`).toEqual(expected);
      }
    }
  }
});

test("replicas can do what all of them can, in the shortest context", async () => {
  const lora = await fake({ lora: true, maxModelLen: 128 });
  const plain = await fake({ maxLogprobs: 5 });
  const { model } = await connect([lora, plain]);
  expect(model.capabilities).toEqual(VLLM);
  expect(model.contextLength).toBe(128);
  await expect(score(model, PROMPT, { topK: 6 })).rejects.toMatchObject({ code: "unsupported_by_backend" });
  const both = await connect([lora, await fake({ lora: true })]);
  expect(both.model.capabilities.adapters).toBe(true);
});

test("one replica that cannot score, or names its ids elsewhere, decides for all", async () => {
  const without = await connect([await fake(), await fake({ lacks: ["prompt_logprobs"] })]);
  expect(without.model.capabilities).toEqual({ ...VLLM, ...NO_SCORES });
  const elsewhere = await connect([await fake(), await fake({ lacks: ["token_ids"] })]);
  expect(elsewhere.model.capabilities.sample).toBe(false);
});

test("servers of different weights are no replicas", async () => {
  const one = await fake();
  const other = await fake({ toy: { salt: 2 } });
  const refusal = await connect([one, other]).catch((error: unknown) => error);
  expect(refusal).toMatchObject({ code: "backend_failed", param: "model" });
  expect((refusal as Error).message).toContain(`${other.where} and ${one.where} serve different weights`);
  expect((refusal as Error).message).toMatch(/differ by \d+\.\d\d nats/);
  await connect([one, await fake()]);
});

test("two base URLs on one host are told apart by their paths", async () => {
  const server = await fake();
  const other = new URL("/other/v1", server.url).href;
  const connecting = connect([server], { baseUrls: [server.url, other] });
  await expect(connecting).rejects.toMatchObject({ message: expect.stringContaining(`${server.where}/other/v1`) });
  const { model } = await connect([server]);
  expect(model.replicas().map(({ where }) => where)).toEqual([server.where]);
});

test("a server that serves another name says which", async () => {
  const server = await fake();
  const refusal = await connect([server], { name: "llama" }).catch((error: unknown) => error);
  expect(refusal).toMatchObject({ code: "backend_refused", param: "model" });
  expect((refusal as Error).message).toBe(`${server.where}: does not serve "llama", but "toy"`);
});

test("the context is what the server says, unless it says nothing", async () => {
  const silent = await fake({ lacks: ["max_model_len"] });
  await expect(connect([silent])).rejects.toMatchObject({ code: "invalid_value", param: "context_length" });
  const { model } = await connect([silent], { contextLength: 64 });
  expect(model.contextLength).toBe(64);
  const [sampled] = await sampleAll(model, { params: { maxTokens: 200 } });
  expect(sampled!.ids).toEqual(drawIds(TOY, PROMPT, { seed: 1 }, 56));
});

test("the vocabulary is that of the served weights where they show it: padded rows are ids too", async () => {
  const padded = await fake({ maxLogprobs: -1 });
  const { model } = await connect([padded], { vocabSize: 290 });
  expect(model.vocabSize).toBe(300);
  expect((await connect([await fake()], { vocabSize: 290 })).model.vocabSize).toBe(290);
});

test("an address that is not allowed is never asked anything", async () => {
  const server = await fake();
  const engine = createOpenAiEngine({
    allowedHosts: ["models.example.org"],
    observe: () => undefined,
    now: () => performance.now(),
    hashAdapter: async () => "",
  });
  expect(() => engine.check([server.url])).toThrow(expect.objectContaining({ code: "model_source_not_allowed" }));
  const options = { name: "toy", key: undefined, tempered: 1, vocabSize: 300, eosIds: [2], contextLength: null };
  const connecting = engine.connect({ ...options, baseUrls: [server.url], probeIds: PROBE });
  await expect(connecting).rejects.toMatchObject({ code: "model_source_not_allowed" });
  expect(server.seen.requests).toEqual([]);
});

test("the key is sent where there is one, and nothing where there is none", async () => {
  const open = await fake();
  const seen = open.seen.requests;
  await connect([open]);
  expect(seen.length).toBeGreaterThan(0);
  expect(seen.every(({ headers }) => headers.authorization === undefined)).toBe(true);
  const guarded = await fake({ apiKey: "sk-secret" });
  await connect([guarded], { key: "sk-secret" });
  for (const key of [undefined, "sk-wrong"]) {
    const refusal = await connect([guarded], { key }).catch((error: unknown) => error);
    expect(refusal).toMatchObject({ code: "backend_refused" });
    expect((refusal as Error).message).toContain('401: "Unauthorized". Does `credential` name the right key?');
  }
});

test("the server's words are passed on without the key, should it repeat it", async () => {
  const server = await fake({ apiKey: "sk-secret" });
  server.misbehave({ kind: "status", status: 418, message: "no tea for\nsk-secret here" });
  const refusal = await connect([server], { key: "sk-secret" }).catch((error: unknown) => error);
  expect((refusal as Error).message).toBe(`${server.where}: answered 418: "no tea for … here"`);
});

test("redirects are not followed: they would take the key and the texts elsewhere", async () => {
  const elsewhere = await fake();
  const server = await fake();
  server.misbehave({ kind: "redirect", to: `${elsewhere.url}/completions` });
  const refusal = await connect([server], { key: "sk-secret" }).catch((error: unknown) => error);
  expect(refusal).toMatchObject({ code: "backend_refused" });
  expect((refusal as Error).message).toContain(`redirects to "${elsewhere.where}", which is not followed`);
  expect(elsewhere.seen.requests).toEqual([]);
});

test("a server that is not there, or answers anything else, cannot be registered", async () => {
  const dead = await fake();
  await dead.kill();
  const alive = await fake();
  const refusal = await connect([dead]).catch((error: unknown) => error);
  expect(refusal).toMatchObject({ code: "backend_unavailable", param: "model", retryAfterSeconds: 1 });
  expect((refusal as Error).message).toBe(`${dead.where}: cannot be reached (ECONNREFUSED)`);
  for (const [fault, code] of [
    [{ kind: "status", status: 500 }, "backend_failed"],
    [{ kind: "status", status: 503, retryAfter: "7" }, "overloaded"],
    [{ kind: "html" }, "backend_failed"],
  ] as const) {
    for (const path of [/models$/, /completions$/]) {
      alive.misbehave(fault, { path });
      const wait = code === "overloaded" ? { retryAfterSeconds: 7 } : {};
      await expect(connect([alive]), `${fault.kind} ${path}`).rejects.toMatchObject({ code, ...wait });
      alive.behave();
    }
  }
});

test("a pool begins with the replicas that are there; the others join when they come", async () => {
  const late = await fake();
  await late.kill();
  const { model, events } = await connect([await fake(), late]);
  expect(model.capabilities.sample).toBe(true);
  await late.revive();
  await eventually(() => events.some(({ type, where }) => type === "closed" && where === late.where));
}, 10_000);

test("registering can be given up", async () => {
  const server = await fake();
  server.misbehave({ kind: "hang" });
  const events: unknown[] = [];
  const engine = createOpenAiEngine({
    allowedHosts: ["127.0.0.1"],
    observe: (event) => void events.push(event),
    now: () => performance.now(),
    hashAdapter: async () => "",
  });
  const options = { name: "toy", key: undefined, tempered: 1, vocabSize: 300, eosIds: [2], contextLength: null };
  const connecting = engine.connect({ ...options, baseUrls: [server.url], probeIds: PROBE }, AbortSignal.timeout(100));
  await expect(connecting).rejects.toMatchObject({ code: "cancelled" });
  expect(events).toEqual([]);
});

test("the server's own tokens of a text, where it can be asked", async () => {
  const { model } = await connect([await fake()]);
  expect(await model.serverTokens("<7><12>ab")).toEqual([7, 12, 97, 98]);
  const mute = await connect([await fake({ lacks: ["tokenize"] })]);
  expect(await mute.model.serverTokens("<7>")).toBeNull();
});

test("a server that is busy has not said that it cannot", async () => {
  const busy = { kind: "status", status: 503, retryAfter: "7" } as const;
  const [server, other] = [await fake({ lora: true }), await fake({ lora: true })];
  server.misbehave(busy, { path: /load_lora/ });
  await expect(connect([server])).rejects.toMatchObject({ code: "overloaded", retryAfterSeconds: 7 });
  const pool = await connect([server, other]);
  expect(pool.model.capabilities.adapters).toBe(true);
  const { model } = await connect([other]);
  other.misbehave(busy, { path: /tokenize/, times: 1 });
  await expect(model.serverTokens("<7>")).rejects.toMatchObject({ code: "overloaded", retryAfterSeconds: 7 });
  expect(await model.serverTokens("<7>")).toEqual([7]);
});

test("tokens are asked of a replica that is up", async () => {
  const [late, there] = [await fake(), await fake()];
  await late.kill();
  const { model } = await connect([late, there]);
  expect(await model.serverTokens("<7>")).toEqual([7]);
});
