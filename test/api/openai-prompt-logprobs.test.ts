/** `prompt_logprobs` over the whole vocabulary and from a position on, and tokens named by their ids. */
import { expect, test } from "vitest";
import type { EngineModel } from "../../src/engine/engine.ts";
import { createFakeEngine, decodeIds, encodeChat, encodePlain, fakeLogprobs, VOCAB_SIZE } from "./fakes.ts";
import { type Answer, openaiFixture } from "./openai-fixture.ts";

const PATH = "/v1/completions";
const base = { model: "fake", prompt: "Hello", add_special_tokens: false };
const scoring = { ...base, max_tokens: 0 };
const LIMIT = 500_000;

const ids = (length: number): number[] => Array.from({ length }, (_, i) => 65 + (i % 26));

/** Every id of the vocabulary with its exact log-prob, ranked without gaps from the most likely on. */
function expectWholeRow(entry: Answer, row: Float32Array): void {
  expect(Object.keys(entry)).toHaveLength(row.length);
  const byRank: number[] = [];
  for (const [id, { logprob, rank, decoded_token }] of Object.entries<Answer>(entry)) {
    expect(logprob).toBe(row[Number(id)]);
    expect(decoded_token).toBe(decodeIds([Number(id)], true));
    byRank[rank] = logprob;
  }
  expect(byRank.slice(1)).toEqual([...row].sort((a, b) => b - a));
}

test("tokens are named by their ids, places in the text stay; alone the field changes nothing", async () => {
  const { post, stream } = openaiFixture({ script: () => [0xf0, 0x9f, 0x98, 0x80, 33] });
  const request = { ...base, prompt: "a = b", echo: true, logprobs: 2, return_token_ids: true };
  const plain = (await post(PATH, request)).body.choices[0];
  const named = (await post(PATH, { ...request, return_tokens_as_token_ids: true })).body.choices[0];
  const all = [...plain.prompt_token_ids, ...plain.token_ids];
  expect(named.logprobs.tokens).toEqual(all.map((id: number) => `token_id:${id}`));
  expect(named.logprobs.text_offset).toEqual(plain.logprobs.text_offset);
  expect(named.logprobs.token_logprobs).toEqual(plain.logprobs.token_logprobs);
  expect(named.text).toBe("a = b😀!");
  expect(named.logprobs.top_logprobs[0]).toBeNull();
  for (let i = 1; i < all.length; i++) {
    const row = fakeLogprobs(all.slice(0, i));
    const best = [...row.keys()].sort((a, b) => row[b]! - row[a]!).slice(0, 2);
    const keys = new Set([...best, all[i]].map((id) => `token_id:${id}`));
    expect(new Set(Object.keys(named.logprobs.top_logprobs[i]))).toEqual(keys);
    for (const key of keys) expect(named.logprobs.top_logprobs[i][key]).toBe(row[Number(key.slice(9))]);
  }

  const { chunks } = await stream(PATH, { ...request, return_tokens_as_token_ids: true });
  const streamed = chunks.flatMap((chunk) => chunk.choices[0].logprobs?.tokens ?? []);
  expect(streamed).toEqual(named.logprobs.tokens);

  const without = { ...base, seed: 1, return_tokens_as_token_ids: true };
  expect((await post(PATH, without)).body.choices[0].logprobs).toBeNull();
  const chat = { model: "fake", messages: [{ role: "user", content: "hi" }], return_tokens_as_token_ids: true };
  expect((await post("/v1/chat/completions", chat)).body.error).toMatchObject({ code: "unknown_parameter" });
});

test("prompt_logprobs -1 reports the whole vocabulary, exactly and in order, over several chunks", async () => {
  const { post, engine } = openaiFixture();
  const prompt = ids(40);
  for (const temperature of [1, 0.7]) {
    const request = { ...scoring, prompt, prompt_logprobs: -1, prompt_logprobs_temperature: temperature };
    const { body } = await post(PATH, request);
    const list = body.choices[0].prompt_logprobs;
    expect(list).toHaveLength(40);
    expect(list[0]).toBeNull();
    for (let i = 1; i < prompt.length; i++) expectWholeRow(list[i], fakeLogprobs(prompt.slice(0, i), temperature));
    const own = (await post(PATH, { ...request, prompt_logprobs: 0 })).body.choices[0].prompt_logprobs;
    for (let i = 1; i < prompt.length; i++) expect(list[i][prompt[i]!]).toEqual(own[i][prompt[i]!]);
  }
  expect(engine.distributed.map(({ from, to, temperature }) => [from, to, temperature])).toEqual([
    [1, 40, 1],
    [1, 40, 0.7],
  ]);
});

test("prompt_logprobs -1 of several prompts, beside echo, from a position on", async () => {
  const { post, engine } = openaiFixture();
  const prompt = [ids(5), ids(3), ids(2)];
  const request = { ...scoring, prompt, n: 2, prompt_logprobs: -1, prompt_logprobs_from: 2, echo: true, logprobs: 1 };
  const { choices } = (await post(PATH, request)).body;
  expect(choices).toHaveLength(6);
  for (const { index, prompt_logprobs: list, logprobs } of choices) {
    const mine = prompt[Math.floor(index / 2)]!;
    expect(list).toHaveLength(mine.length);
    expect(list.slice(0, 2)).toEqual([null, null]);
    for (let i = 2; i < mine.length; i++) expectWholeRow(list[i], fakeLogprobs(mine.slice(0, i)));
    expect(logprobs.token_logprobs.slice(1)).toEqual(
      mine.slice(1).map((id, i) => fakeLogprobs(mine.slice(0, i + 1))[id]),
    );
  }
  // The third prompt has nothing to compute.
  expect(engine.distributed.map(({ from, to }) => [from, to])).toEqual([
    [2, 5],
    [2, 3],
  ]);
});

/** The fake engine with one distribution for every token. */
function constant(row: Float32Array): EngineModel {
  return {
    ...createFakeEngine(),
    async *distributions({ from, to }) {
      for (let token = from; token < to; token++) yield row.slice();
    },
  };
}

test("equals are ranked by id behind the prompt's own token; what underflowed is the lowest; what is no number fails", async () => {
  const row = new Float32Array(VOCAB_SIZE).fill(-7);
  row.set([0.25, -0, -1, -Number.MIN_VALUE, -Infinity], 10);
  const asked = { ...scoring, prompt: [65, 66], prompt_logprobs: -1 };
  const [, entry] = (await openaiFixture({ engine: constant(row) }).post(PATH, asked)).body.choices[0].prompt_logprobs;
  expect([10, 11, 13, 12].map((id) => entry[id].rank)).toEqual([1, 2, 3, 4]);
  expect(entry[66]).toMatchObject({ logprob: -7, rank: 5 });
  expect([0, 1, 9, 15, 65, 67].map((id) => entry[id].rank)).toEqual([6, 7, 15, 16, 66, 67]);
  expect(entry[14]).toMatchObject({ logprob: -9999, rank: VOCAB_SIZE });

  const { post, registry } = openaiFixture({ engine: constant(row.fill(Number.NaN)) });
  expect((await post(PATH, asked)).body.error).toMatchObject({ code: "engine_failed" });
  expect(registry.held()).toBe(0);
});

test("the whole vocabulary counts for every wanted position, and nothing else does", async () => {
  const { post, engine } = openaiFixture();
  const most = Math.floor(LIMIT / (VOCAB_SIZE * 128));
  const asked = { ...scoring, n: 128, prompt_logprobs: -1 };
  for (const from of [1, 100]) {
    const over = await post(PATH, { ...asked, prompt: ids(from + most + 1), prompt_logprobs_from: from });
    expect(over).toMatchObject({ status: 400, body: { error: { code: "invalid_value", param: "prompt_logprobs" } } });
    expect(over.body.error.message).toContain(`${(most + 1) * 128 * VOCAB_SIZE} log-probs`);
    expect(over.body.error.message).toContain("prompt_logprobs_from");
  }
  expect(engine.distributed).toHaveLength(0);
  const fits = await post(PATH, { ...asked, prompt: ids(100 + most), prompt_logprobs_from: 100 });
  expect(fits.status).toBe(200);
  expect(fits.body.choices[127].prompt_logprobs.filter(Boolean)).toHaveLength(most);
});

test("an engine without whole distributions says so, whatever else it can", async () => {
  const { post } = openaiFixture({ capabilities: { distributions: false } });
  const refused = await post(PATH, { ...scoring, prompt_logprobs: -1 });
  expect(refused.body.error).toMatchObject({ code: "unsupported_by_backend", param: "prompt_logprobs" });
  expect((await post(PATH, { ...scoring, prompt_logprobs: 5 })).status).toBe(200);
  const cold = openaiFixture({ capabilities: { exact_temperatures: [1], topk: false } });
  expect((await cold.post(PATH, { ...scoring, prompt_logprobs: -1 })).status).toBe(200);
  const warm = await cold.post(PATH, { ...scoring, prompt_logprobs: -1, prompt_logprobs_temperature: 2 });
  expect(warm.body.error.code).toBe("unsupported_by_backend");
});

test("prompt_logprobs_from leaves out what comes before it, in the answer and in the computation", async () => {
  const { post, engine } = openaiFixture();
  const prompt = [ids(6), ids(4), ids(3)];
  const request = { ...scoring, prompt, prompt_logprobs: 2 };
  const whole = (await post(PATH, request)).body.choices;
  const part = (await post(PATH, { ...request, prompt_logprobs_from: 3 })).body.choices;
  prompt.forEach((mine, p) => {
    const list = part[p].prompt_logprobs;
    expect(list).toEqual(whole[p].prompt_logprobs.map((entry: Answer, i: number) => (i < 3 ? null : entry)));
    expect(list).toHaveLength(mine.length);
  });
  expect(engine.scored.map(({ sequences }) => sequences[0]!.from)).toEqual([1, 1, 1, 3, 3]);
  for (const from of [3, 1000, Number.MAX_SAFE_INTEGER]) {
    const { body } = await post(PATH, { ...request, prompt: ids(3), prompt_logprobs_from: from });
    expect(body.choices[0].prompt_logprobs).toEqual([null, null, null]);
  }
  expect(engine.scored).toHaveLength(5);
  const one = await post(PATH, { ...request, prompt: ids(3), prompt_logprobs_from: null });
  expect(one.body.choices[0].prompt_logprobs).toEqual(whole[2].prompt_logprobs);
});

test("echo reports the whole prompt beside prompt_logprobs_from, in one pass where the temperature allows", async () => {
  const { post, engine } = openaiFixture();
  const request = { ...scoring, prompt: ids(6), echo: true, logprobs: 3 };
  const echoed = (await post(PATH, request)).body.choices[0].logprobs;
  for (const [temperature, passes] of [
    [1, [1]],
    [0.5, [4, 1]],
  ] as const) {
    const before = engine.scored.length;
    const asked = { prompt_logprobs: 1, prompt_logprobs_from: 4, prompt_logprobs_temperature: temperature };
    const choice = (await post(PATH, { ...request, ...asked })).body.choices[0];
    expect(choice.logprobs).toEqual(echoed);
    expect(choice.prompt_logprobs.slice(0, 4)).toEqual([null, null, null, null]);
    for (const i of [4, 5]) {
      const row = fakeLogprobs(ids(i), temperature);
      const own = 65 + i;
      expect(choice.prompt_logprobs[i][own].logprob).toBe(row[own]);
      expect(Object.keys(choice.prompt_logprobs[i]).length).toBe(choice.prompt_logprobs[i][own].rank === 1 ? 1 : 2);
    }
    expect(engine.scored.slice(before).map(({ sequences }) => sequences[0]!.from)).toEqual(passes);
  }
});

test.each([
  ["some alternatives", { prompt_logprobs: 2, prompt_logprobs_from: 3 }],
  ["the whole vocabulary", { prompt_logprobs: -1, prompt_logprobs_from: 4 }],
  ["nothing but nulls", { prompt_logprobs: 2, prompt_logprobs_from: 9 }],
])("a stream's first chunk of each choice carries the same: %s", async (_, fields) => {
  const { post, stream } = openaiFixture({ says: "the teacher" });
  const request = { ...base, prompt: [ids(6), ids(5)], n: 2, ...fields };
  const plain = (await post(PATH, request)).body.choices;
  const { chunks, done } = await stream(PATH, request);
  expect(done).toBe(true);
  for (const choice of plain) {
    const mine = chunks.flatMap((chunk) => chunk.choices).filter((c) => c.index === choice.index);
    expect(mine[0]).toMatchObject({ text: "", logprobs: null, finish_reason: null });
    expect(mine[0].prompt_logprobs).toEqual(choice.prompt_logprobs);
    expect(mine.slice(1).every((c) => c.prompt_logprobs === undefined)).toBe(true);
    expect(mine.map((c) => c.text).join("")).toBe("the teacher");
  }
});

test("a chat takes both, streamed or not", async () => {
  const { post, stream } = openaiFixture({ says: "ok" });
  const messages = [{ role: "user", content: "What is 2+3?" }];
  const prompt = encodeChat(messages);
  const from = prompt.length - 2;
  const request = { model: "fake", messages, prompt_logprobs: -1, prompt_logprobs_from: from };
  const { body } = await post("/v1/chat/completions", request);
  expect(body.prompt_logprobs).toHaveLength(prompt.length);
  expect(body.prompt_logprobs.slice(0, from).every((entry: Answer) => entry === null)).toBe(true);
  for (const i of [from, from + 1]) expectWholeRow(body.prompt_logprobs[i], fakeLogprobs(prompt.slice(0, i)));
  const { chunks } = await stream("/v1/chat/completions", request);
  expect(chunks[0].choices[0].prompt_logprobs).toEqual(body.prompt_logprobs);
});

test("usage counts what the cache had when the prompt was first seen", async () => {
  const { post } = openaiFixture({ says: "ok", cachedTokens: 2 });
  const cached = async (fields: object): Promise<number> =>
    (await post(PATH, { ...base, ...fields })).body.usage.prompt_tokens_details.cached_tokens;
  expect(await cached({ prompt_logprobs: 1, prompt_logprobs_from: 3 })).toBe(2);
  // Nothing was scored: the engine first sees it when it samples.
  expect(await cached({ prompt_logprobs: 1, prompt_logprobs_from: 99 })).toBe(2);
  // Distributions do not tell, and after them it is no news.
  expect(await cached({ prompt_logprobs: -1 })).toBe(0);
});

test("an engine that learns at the end what the cache had corrects the usage, unless the prompt was scored before", async () => {
  const fake = createFakeEngine({ script: () => encodePlain("ok"), cachedTokens: 1 });
  const engine: EngineModel = {
    ...fake,
    async *sample(request) {
      yield* fake.sample(request);
      yield { type: "usage", cachedTokens: 4 };
    },
  };
  const { post, stream } = openaiFixture({ engine });
  for (const [fields, tokens] of [
    [{}, 4],
    [{ prompt_logprobs: 0 }, 1],
  ] as const) {
    const { body } = await post(PATH, { ...base, ...fields });
    expect(body.usage.prompt_tokens_details.cached_tokens).toBe(tokens);
    const { chunks } = await stream(PATH, { ...base, ...fields, stream_options: { include_usage: true } });
    expect(chunks.at(-1).usage).toEqual(body.usage);
  }
});

test.each<[string, object, string]>([
  ["fewer than all", { prompt_logprobs: -2 }, "prompt_logprobs"],
  ["the first token", { prompt_logprobs: 1, prompt_logprobs_from: 0 }, "prompt_logprobs_from"],
  ["half a position", { prompt_logprobs: 1, prompt_logprobs_from: 1.5 }, "prompt_logprobs_from"],
  ["a position in words", { prompt_logprobs: 1, prompt_logprobs_from: "last" }, "prompt_logprobs_from"],
  ["a name of ids that is no boolean", { logprobs: 1, return_tokens_as_token_ids: 1 }, "return_tokens_as_token_ids"],
])("refuses %s", async (_, fields, param) => {
  const { status, body } = await openaiFixture().post(PATH, { ...base, ...fields });
  expect(status).toBe(400);
  expect(body.error).toMatchObject({ code: "invalid_value", param, type: "invalid_request_error" });
});
