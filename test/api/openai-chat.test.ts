import { expect, test } from "vitest";
import { createFakeText, encodeChat, encodePlain, fakeLogprobs, IM_END, IM_START } from "./fakes.ts";
import { type Answer, openaiFixture } from "./openai-fixture.ts";

const PATH = "/v1/chat/completions";
const base = { model: "fake", messages: [{ role: "user", content: "What is 2+3?" }] };

test("a chat is rendered with the template and answered", async () => {
  const { post, engine, registry } = openaiFixture({ says: "5, because the sum", contextLength: 100 });
  const { status, body } = await post(PATH, base);
  expect(status).toBe(200);
  expect(body).toMatchObject({
    object: "chat.completion",
    model: "fake",
    system_fingerprint: "fake@1",
    choices: [
      {
        index: 0,
        message: { role: "assistant", content: "5, because the sum", refusal: null },
        finish_reason: "stop",
        logprobs: null,
      },
    ],
  });
  expect(body.id).toMatch(/^chatcmpl_/);
  const prompt = encodeChat(base.messages);
  expect([...engine.samples[0]!.promptIds]).toEqual(prompt);
  // As many as the context holds.
  expect(engine.samples[0]!.params.maxTokens).toBe(100 - prompt.length);
  expect(body.sampling.max_tokens).toBe(100 - prompt.length);
  expect(body.usage.prompt_tokens).toBe(prompt.length);
  expect(registry.held()).toBe(0);
});

test("contents are text: control tokens, parts, developer and tool turns", async () => {
  const { post, engine } = openaiFixture({ says: "ok" });
  const messages = [
    { role: "developer", content: "be brief" },
    {
      role: "user",
      content: [
        { type: "text", text: "one" },
        { type: "text", text: "<|im_end|>" },
      ],
    },
    { role: "assistant", content: null, tool_calls: [] },
    { role: "tool", content: "42", tool_call_id: "call_1" },
  ];
  expect((await post(PATH, { ...base, messages })).status).toBe(200);
  const ids = [...engine.samples[0]!.promptIds];
  expect(ids).toEqual(
    encodeChat([
      { role: "system", content: "be brief" },
      { role: "user", content: "one\n<|im_end|>" },
      { role: "assistant", content: "" },
      { role: "tool", content: "42" },
    ]),
  );
  expect(ids.filter((id) => id === IM_START)).toHaveLength(5);
  expect(ids.filter((id) => id === IM_END)).toHaveLength(4);
});

test("the first chunk of each choice carries the role, the last one the finish_reason, usage comes at the end", async () => {
  const { stream } = openaiFixture({ says: "the teacher 😀" });
  const { chunks, done } = await stream(PATH, { ...base, n: 2, stream_options: { include_usage: true } });
  expect(done).toBe(true);
  const last = chunks.pop();
  expect(last.choices).toEqual([]);
  expect(last.usage.total_tokens).toBe(last.usage.prompt_tokens + last.usage.completion_tokens);
  for (const index of [0, 1]) {
    const mine = chunks.flatMap((chunk) => chunk.choices).filter((choice) => choice.index === index);
    expect(mine[0]).toMatchObject({ delta: { role: "assistant", content: "" }, finish_reason: null });
    expect(mine.map((choice) => choice.delta.content ?? "").join("")).toBe("the teacher 😀");
    expect(mine.at(-1)).toMatchObject({ delta: {}, finish_reason: "stop" });
    expect(mine.slice(1).some((choice) => choice.delta.role !== undefined)).toBe(false);
  }
  expect(chunks.every((chunk) => chunk.object === "chat.completion.chunk" && chunk.usage === null)).toBe(true);
});

test("without include_usage there is none", async () => {
  const { stream } = openaiFixture({ says: "hi" });
  const { chunks } = await stream(PATH, base);
  expect(chunks.some((chunk) => "usage" in chunk)).toBe(false);
  expect(chunks.at(-1).choices[0].finish_reason).toBe("stop");
});

test("log-probs with bytes and alternatives, the same streamed and not", async () => {
  const { post, stream } = openaiFixture();
  const request = { ...base, logprobs: true, top_logprobs: 2, max_tokens: 5, seed: 9, return_token_ids: true };
  const { body } = await post(PATH, request);
  const { content, refusal } = body.choices[0].logprobs;
  expect(refusal).toBeNull();
  const ids: number[] = body.choices[0].token_ids;
  expect(content).toHaveLength(ids.length);
  ids.forEach((id, i) => {
    const row = fakeLogprobs([...encodeChat(base.messages), ...ids.slice(0, i)]);
    expect(content[i].logprob).toBeCloseTo(row[id]!, 6);
    expect(content[i].top_logprobs).toHaveLength(2);
    expect(content[i].top_logprobs[0].logprob).toBeCloseTo(Math.max(...row), 6);
    if (content[i].bytes) {
      expect(new TextDecoder().decode(Uint8Array.from(content[i].bytes))).toBe(content[i].token);
    }
  });
  const { chunks } = await stream(PATH, request);
  const streamed = chunks.flatMap((chunk) => chunk.choices[0]?.logprobs?.content ?? []);
  expect(streamed).toEqual(content);
  expect(chunks[0].choices[0].prompt_token_ids).toEqual(body.prompt_token_ids);
  expect(body.prompt_token_ids).toEqual(encodeChat(base.messages));
});

test("prompt_logprobs of a chat speak of the rendered prompt", async () => {
  const { post } = openaiFixture({ says: "ok" });
  const { body } = await post(PATH, { ...base, prompt_logprobs: 0, max_completion_tokens: 0 });
  const ids = encodeChat(base.messages);
  expect(body.choices[0].prompt_logprobs).toHaveLength(ids.length);
  expect(body.prompt_logprobs).toEqual(body.choices[0].prompt_logprobs);
  expect(body.prompt_logprobs[5][ids[5]!].logprob).toBeCloseTo(fakeLogprobs(ids.slice(0, 5))[ids[5]!]!, 5);
  expect(body.choices[0].message.content).toBe("");
});

test("both names of max_tokens", async () => {
  const { post, engine } = openaiFixture();
  await post(PATH, { ...base, max_tokens: 3 });
  await post(PATH, { ...base, max_completion_tokens: 4, max_tokens: null });
  expect(engine.samples.map((sample) => sample.params.maxTokens)).toEqual([3, 4]);
  const both = await post(PATH, { ...base, max_tokens: 3, max_completion_tokens: 4 });
  expect(both).toMatchObject({ status: 400, body: { error: { param: "max_tokens", code: "invalid_value" } } });
});

test("sampling parameters reach the engine", async () => {
  const { post, engine } = openaiFixture({ says: "ok" });
  await post(PATH, { ...base, n: 3, temperature: 0.3, top_p: 0, top_k: -1, seed: 5, ignore_eos: false });
  expect(engine.samples[0]).toMatchObject({
    n: 3,
    seed: 5,
    logprobsTemperature: 1,
    params: { temperature: 0.3, topK: 0 },
  });
  expect(engine.samples[0]!.params.topP).toBeGreaterThan(0);
  expect(engine.samples[0]!.params.topP).toBeLessThan(1e-9);
});

test.each<[string, object, string, string]>([
  ["tools", { tools: [{ type: "function" }] }, "unsupported_parameter", "tools"],
  ["JSON mode", { response_format: { type: "json_object" } }, "unsupported_parameter", "response_format"],
  ["template variables", { chat_template_kwargs: { a: 1 } }, "unsupported_parameter", "chat_template_kwargs"],
  ["penalties", { presence_penalty: 0.5 }, "unsupported_parameter", "presence_penalty"],
  ["storage", { store: true }, "unsupported_parameter", "store"],
  [
    "images",
    chat([{ type: "image_url", image_url: { url: "x" } }]),
    "unsupported_parameter",
    "messages.0.content.0.type",
  ],
  ["names", { messages: [{ role: "user", content: "x", name: "Bob" }] }, "unsupported_parameter", "messages.0.name"],
  ["unknown fields", { max_token: 5 }, "unknown_parameter", "max_token"],
  [
    "unknown fields in messages",
    { messages: [{ role: "user", contents: "x" }] },
    "unknown_parameter",
    "messages.0.contents",
  ],
  ["unknown roles", { messages: [{ role: "wizard", content: "x" }] }, "invalid_value", "messages.0.role"],
  ["a user without content", { messages: [{ role: "user" }] }, "invalid_value", "messages.0.content"],
  ["no messages", { messages: [] }, "invalid_value", "messages"],
  ["missing messages", { messages: undefined }, "invalid_value", "messages"],
  ["top_logprobs alone", { top_logprobs: 3 }, "invalid_value", "top_logprobs"],
  ["too many top_logprobs", { logprobs: true, top_logprobs: 21 }, "invalid_value", "top_logprobs"],
  ["stream_options without stream", { stream_options: { include_usage: true } }, "invalid_value", "stream_options"],
])("refuses %s", async (_, fields, code, param) => {
  const { post, engine, registry } = openaiFixture();
  const { status, body } = await post(PATH, { ...base, ...fields });
  expect(body.error).toMatchObject({ code, param, type: "invalid_request_error" });
  expect(status).toBe(400);
  expect(engine.samples).toHaveLength(0);
  expect(registry.held()).toBe(0);
});

function chat(content: unknown): object {
  return { messages: [{ role: "user", content }] };
}

test("fields that are not implemented pass at their neutral values", async () => {
  const { post } = openaiFixture({ says: "ok" });
  const neutral = {
    audio: null,
    frequency_penalty: 0,
    presence_penalty: 0,
    logit_bias: {},
    tools: [],
    tool_choice: "auto",
    parallel_tool_calls: true,
    response_format: { type: "text" },
    modalities: ["text"],
    store: false,
    metadata: {},
    service_tier: "auto",
    chat_template_kwargs: {},
    user: "someone",
    stop: null,
    n: null,
    seed: null,
    stream: null,
    top_logprobs: 0,
  };
  const { status, body } = await post(PATH, { ...base, ...neutral });
  expect(body.error).toBeUndefined();
  expect(status).toBe(200);
});

test("an unknown field is answered with a suggestion", async () => {
  const { post } = openaiFixture();
  const { body } = await post(PATH, { ...base, temprature: 1 });
  expect(body.error).toMatchObject({ code: "unknown_parameter", param: "temprature" });
  expect(body.error.message).toContain('"temperature"');
});

test("a chat longer than the context, or for a model without a template, is refused before anything streams", async () => {
  const { post, registry } = openaiFixture({ contextLength: 16 });
  const long = await post(PATH, { ...base, stream: true });
  expect(long).toMatchObject({ status: 400, body: { error: { code: "context_length_exceeded", param: "messages" } } });
  expect(long.body.error.message).toMatch(/16 tokens.*\d+ tokens/);
  expect(registry.held()).toBe(0);
  const bare = openaiFixture({ text: createFakeText({ hasChatTemplate: false }) });
  expect((await bare.post(PATH, base)).body.error.code).toBe("chat_template_missing");
  expect(bare.registry.held()).toBe(0);
});

test("the end of turn is not in the text, nor in the way of a stop string", async () => {
  const { stream, post } = openaiFixture({ script: () => [...encodePlain("a<|im_"), IM_END] });
  const answer: Answer = (await post(PATH, { ...base, stop: ["<|im_end|>"] })).body;
  expect(answer.choices[0]).toMatchObject({ message: { content: "a<|im_" }, finish_reason: "stop", stop_reason: null });
  const { chunks } = await stream(PATH, { ...base, stop: ["<|im_end|>"] });
  expect(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join("")).toBe("a<|im_");
});
