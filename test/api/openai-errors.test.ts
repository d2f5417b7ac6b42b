import { expect, test } from "vitest";
import { VOCAB_SIZE } from "./fakes.ts";
import { openaiFixture } from "./openai-fixture.ts";

const PATH = "/v1/completions";
const base = { model: "fake", prompt: "Hello" };

test.each<[string, object, string, string]>([
  ["an empty prompt", { prompt: "", add_special_tokens: false }, "invalid_value", "prompt"],
  ["an empty list", { prompt: [] }, "invalid_value", "prompt"],
  ["an empty list of ids inside", { prompt: [[1], []] }, "invalid_value", "prompt.1"],
  ["a missing prompt", { prompt: undefined }, "invalid_value", "prompt"],
  ["a prompt of the wrong type", { prompt: { text: "x" } }, "invalid_value", "prompt"],
  ["a mixed list", { prompt: ["a", 1] }, "invalid_value", "prompt.1"],
  ["mixed ids", { prompt: [1, "a"] }, "invalid_token_ids", "prompt.1"],
  ["nested nonsense", { prompt: [[1], [[2]]] }, "invalid_token_ids", "prompt.1.0"],
  ["negative ids", { prompt: [5, -1] }, "invalid_token_ids", "prompt.1"],
  ["ids beyond the vocabulary", { prompt: [[0], [VOCAB_SIZE]] }, "invalid_token_ids", "prompt.1.0"],
  ["fractional ids", { prompt: [1.5] }, "invalid_token_ids", "prompt.0"],
  ["huge ids", { prompt: [2 ** 40] }, "invalid_token_ids", "prompt.0"],
  ["bad stop ids", { stop_token_ids: [VOCAB_SIZE] }, "invalid_token_ids", "stop_token_ids.0"],
  ["too many prompts", { prompt: Array(1025).fill("x") }, "invalid_value", "prompt"],
  ["too many choices", { prompt: Array(100).fill("x"), n: 100 }, "invalid_value", "n"],
  ["n beyond the limit", { n: 129 }, "invalid_value", "n"],
  ["n of zero", { n: 0 }, "invalid_value", "n"],
  ["a hot temperature", { temperature: 2.1 }, "invalid_value", "temperature"],
  ["a temperature that is nearly none", { temperature: 1e-9 }, "invalid_value", "temperature"],
  ["a temperature in words", { temperature: "high" }, "invalid_value", "temperature"],
  ["top_p beyond 1", { top_p: 1.5 }, "invalid_value", "top_p"],
  ["a negative seed", { seed: -1 }, "invalid_value", "seed"],
  ["negative max_tokens", { max_tokens: -1 }, "invalid_value", "max_tokens"],
  ["an empty stop string", { stop: ["a", ""] }, "invalid_value", "stop.1"],
  ["a stop string of half a character", { stop: "\ud83d" }, "invalid_value", "stop"],
  ["a long stop string", { stop: "x".repeat(513) }, "invalid_value", "stop"],
  ["many stop strings", { stop: Array(17).fill("x") }, "invalid_value", "stop"],
  ["many log-probs", { logprobs: 21 }, "invalid_value", "logprobs"],
  [
    "too much to report",
    { prompt_logprobs: 20, prompt: Array(60).fill(Array(500).fill(65)) },
    "invalid_value",
    "prompt_logprobs",
  ],
  [
    "scoring at temperature 0",
    { prompt_logprobs: 1, prompt_logprobs_temperature: 0 },
    "invalid_value",
    "prompt_logprobs_temperature",
  ],
  ["best_of", { best_of: 3 }, "unsupported_parameter", "best_of"],
  ["suffix", { suffix: "end" }, "unsupported_parameter", "suffix"],
  ["biases", { logit_bias: { "5": 10 } }, "unsupported_parameter", "logit_bias"],
  ["an unknown field", { promt_logprobs: 1 }, "unknown_parameter", "promt_logprobs"],
  [
    "an unknown stream option",
    { stream: true, stream_options: { usage: true } },
    "unknown_parameter",
    "stream_options.usage",
  ],
])("refuses %s", async (_, fields, code, param) => {
  const { post, engine, registry } = openaiFixture();
  const { status, body } = await post(PATH, { ...base, ...fields });
  expect(body.error).toMatchObject({ code, param, type: "invalid_request_error" });
  expect(status).toBe(400);
  expect(engine.samples).toHaveLength(0);
  expect(registry.held()).toBe(0);
});

test("an unknown model is a 404, streamed or not", async () => {
  const { post } = openaiFixture();
  for (const stream of [false, true]) {
    const { status, body } = await post(PATH, { ...base, model: "nobody", stream });
    expect(status).toBe(404);
    expect(body.error).toMatchObject({ code: "model_not_found", type: "not_found_error", param: "model" });
  }
});

test("a prompt over the context is refused with both numbers; one that fills it may be scored", async () => {
  const { post } = openaiFixture({ contextLength: 8 });
  const ids = (length: number) => Array(length).fill(65);
  for (const length of [8, 9]) {
    const { status, body } = await post(PATH, { ...base, prompt: ids(length) });
    expect(status).toBe(400);
    expect(body.error).toMatchObject({ code: "context_length_exceeded", param: "prompt" });
    expect(body.error.message).toContain("8 tokens");
    expect(body.error.message).toContain(`${length} tokens`);
  }
  const scored = await post(PATH, { ...base, prompt: ids(8), prompt_logprobs: 0, max_tokens: 0 });
  expect(scored.body.choices[0].prompt_logprobs).toHaveLength(8);
  const over = await post(PATH, { ...base, prompt: ids(9), prompt_logprobs: 0, max_tokens: 0 });
  expect(over.body.error.code).toBe("context_length_exceeded");
});

test("an enormous text is refused before it is tokenised", async () => {
  const { post, registry } = openaiFixture({ contextLength: 8 });
  const { body } = await post(PATH, { ...base, prompt: ["ok", "x".repeat(8 * 64 + 1)] });
  expect(body.error).toMatchObject({ code: "context_length_exceeded", param: "prompt.1" });
  expect(body.error.message).toContain("513 characters");
  expect(registry.held()).toBe(0);
});

test("an engine that cannot report what is asked says so", async () => {
  const { post } = openaiFixture({
    capabilities: { exact_temperatures: [1], topk: false },
  });
  const scoring = { ...base, max_tokens: 0 };
  expect((await post(PATH, { ...scoring, prompt_logprobs: 0 })).status).toBe(200);
  for (const fields of [{ prompt_logprobs: 2 }, { prompt_logprobs: 0, prompt_logprobs_temperature: 0.7 }]) {
    expect((await post(PATH, { ...scoring, ...fields })).body.error.code).toBe("unsupported_by_backend");
  }
});

test("best_of 1, null biases and neutral penalties pass", async () => {
  const { post } = openaiFixture();
  const neutral = { best_of: 1, suffix: null, logit_bias: null, presence_penalty: 0, frequency_penalty: 0, user: "me" };
  expect((await post(PATH, { ...base, ...neutral })).status).toBe(200);
});

test("a signal that aborts ends the engine's work, for a plain answer too", async () => {
  const { app, engine, registry } = openaiFixture({ tokenDelayMs: 5, contextLength: 2000 });
  const controller = new AbortController();
  const body = JSON.stringify({ ...base, prompt: ["a", "b"], max_tokens: 1000, ignore_eos: true });
  const request = new Request("http://localhost/v1/completions", {
    method: "POST",
    headers: { "content-type": "application/json", host: "localhost" },
    body,
    signal: controller.signal,
  });
  const answer = app.fetch(request);
  await expect.poll(() => engine.load().active).toBe(2);
  controller.abort();
  expect((await answer).status).toBe(499);
  expect(engine.aborted()).toBe(2);
  expect(engine.load().active).toBe(0);
  expect(registry.held()).toBe(0);
});
