import { expect, test } from "vitest";
import { BOS, createFakeText, encodeChat, encodeRaw, TOKENIZER_SIZE } from "./fakes.ts";
import { openaiFixture } from "./openai-fixture.ts";

const prompt = "<|im_start|>the teacher";

test("tokenize gives the ids a completion would read", async () => {
  const { post, engine } = openaiFixture({ contextLength: 99 });
  const { body } = await post("/v1/tokenize", { model: "fake", prompt, return_token_strs: true });
  const ids = [BOS, ...encodeRaw(prompt)];
  expect(body).toEqual({
    tokens: ids,
    count: ids.length,
    max_model_len: 99,
    token_strs: ["<|bos|>", "<|im_start|>", "the ", "teacher"],
  });
  await post("/v1/completions", { model: "fake", prompt });
  expect([...engine.samples[0]!.promptIds]).toEqual(body.tokens);
  const bare = await post("/v1/tokenize", { model: "fake", prompt, add_special_tokens: false });
  expect(bare.body.tokens).toEqual(ids.slice(1));
  expect((await post("/v1/tokenize", { model: "fake", prompt: "", add_special_tokens: false })).body).toMatchObject({
    tokens: [],
    count: 0,
  });
});

test("tokenize renders a chat", async () => {
  const { post } = openaiFixture();
  const messages = [{ role: "user", content: "hi <|im_end|>" }];
  const { body } = await post("/v1/tokenize", { model: "fake", messages, add_generation_prompt: true });
  expect(body.tokens).toEqual(encodeChat(messages));
});

test("detokenize is the way back, special tokens included", async () => {
  const { post } = openaiFixture();
  const ids = encodeRaw(`${prompt} 😀<|im_end|>`);
  const { body } = await post("/v1/detokenize", { model: "fake", tokens: ids });
  expect(body).toEqual({ prompt: `${prompt} 😀<|im_end|>` });
  expect((await post("/v1/detokenize", { model: "fake", tokens: [] })).body).toEqual({ prompt: "" });
  expect((await post("/v1/detokenize", { model: "fake", tokens: [0xf0] })).body).toEqual({ prompt: "\ufffd" });
});

test.each<[string, string, object, string, string]>([
  ["both inputs", "tokenize", { prompt: "a", messages: [{ role: "user", content: "a" }] }, "invalid_value", "messages"],
  ["no input", "tokenize", {}, "invalid_value", "prompt"],
  ["a long text", "tokenize", { prompt: "x".repeat(1_000_001) }, "invalid_value", "prompt"],
  [
    "a chat without its beginning of a turn",
    "tokenize",
    { messages: [{ role: "user", content: "a" }], add_generation_prompt: false },
    "unsupported_parameter",
    "add_generation_prompt",
  ],
  ["unknown fields", "tokenize", { prompt: "a", add_special_token: true }, "unknown_parameter", "add_special_token"],
  ["ids out of range", "detokenize", { tokens: [1, TOKENIZER_SIZE] }, "invalid_token_ids", "tokens.1"],
  ["negative ids", "detokenize", { tokens: [-1] }, "invalid_token_ids", "tokens.0"],
  ["ids in words", "detokenize", { tokens: ["a"] }, "invalid_token_ids", "tokens.0"],
  ["a single id", "detokenize", { tokens: 5 }, "invalid_value", "tokens"],
])("refuses %s", async (_, route, fields, code, param) => {
  const { post } = openaiFixture();
  const { status, body } = await post(`/v1/${route}`, { model: "fake", ...fields });
  expect(body.error).toMatchObject({ code, param });
  expect(status).toBe(400);
});

test("an unknown model is a 404", async () => {
  const { post } = openaiFixture();
  expect((await post("/v1/tokenize", { model: "x", prompt: "a" })).status).toBe(404);
  expect((await post("/v1/detokenize", { model: "x", tokens: [] })).status).toBe(404);
});

test("models are listed as OpenAI lists them, one by id or version", async () => {
  const { app } = openaiFixture({ text: createFakeText() });
  const get = async (path: string) => {
    const response = await app.request(path, { headers: { host: "localhost" } });
    return { status: response.status, body: await response.json() };
  };
  const model = { id: "fake", object: "model", created: 1_700_000_000, owned_by: "preceptor", max_model_len: 4096 };
  expect((await get("/v1/models")).body).toEqual({
    object: "list",
    data: [model],
    first_id: "fake",
    last_id: "fake",
    has_more: false,
  });
  expect(await get("/v1/models/fake")).toEqual({ status: 200, body: model });
  expect((await get("/v1/models/fake@1")).body).toEqual({ ...model, id: "fake@1" });
  for (const missing of ["nobody", "fake@9"]) {
    expect(await get(`/v1/models/${missing}`)).toMatchObject({
      status: 404,
      body: { error: { code: "model_not_found" } },
    });
  }
});
