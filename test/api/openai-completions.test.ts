import { expect, test } from "vitest";
import { BOS, decodeIds, encodePlain, encodeRaw, fakeLogprobs, IM_END, TOKENIZER_SIZE } from "./fakes.ts";
import { type Answer, openaiFixture } from "./openai-fixture.ts";

const PATH = "/v1/completions";
const base = { model: "fake", prompt: "Hello", add_special_tokens: false };

const joined = (chunks: Answer[], index = 0): string =>
  chunks
    .flatMap((chunk: Answer) => chunk.choices)
    .filter((choice: Answer) => choice.index === index)
    .map((choice: Answer) => choice.text)
    .join("");

test("a text completion names its model, its parameters and its usage", async () => {
  const { post, engine, registry } = openaiFixture({ says: "because the teacher" });
  const { status, body } = await post(PATH, { ...base, add_special_tokens: true, max_tokens: 40 });
  expect(status).toBe(200);
  expect(body).toMatchObject({
    object: "text_completion",
    created: 1_767_225_600,
    model: "fake",
    system_fingerprint: "fake@1",
    seed: 2 ** 31,
    sampling: { temperature: 1, top_p: 1, top_k: 0, max_tokens: 40, seed: 2 ** 31, logprobs_temperature: 1 },
    choices: [{ index: 0, text: "because the teacher", finish_reason: "stop", stop_reason: null, logprobs: null }],
  });
  expect(body.id).toMatch(/^cmpl_/);
  const sampled = encodePlain("because the teacher").length + 1;
  expect(body.usage).toMatchObject({ prompt_tokens: 6, completion_tokens: sampled, total_tokens: 6 + sampled });
  expect([...engine.samples[0]!.promptIds]).toEqual([BOS, ...encodePlain("Hello")]);
  expect(engine.samples[0]!.stopIds).toEqual([IM_END]);
  expect(registry.held()).toBe(0);
});

test("max_tokens is 16 by default, null included, and never beyond the context", async () => {
  const { post, engine } = openaiFixture({ contextLength: 32 });
  for (const max_tokens of [undefined, null]) {
    const { body } = await post(PATH, { ...base, ignore_eos: true, max_tokens });
    expect(body.usage.completion_tokens).toBe(16);
    expect(body.choices[0].finish_reason).toBe("length");
  }
  const { body } = await post(PATH, { ...base, ignore_eos: true, max_tokens: 1000 });
  expect(engine.samples[2]!.params.maxTokens).toBe(27);
  expect(body.usage.total_tokens).toBe(32);
});

test("raw prompts parse special tokens; ids and lists are taken as they are", async () => {
  const { post, engine } = openaiFixture();
  const prompt = "<|im_start|>user\nhi<|im_end|>";
  await post(PATH, { ...base, prompt });
  await post(PATH, { ...base, prompt: [1, 2, 3] });
  await post(PATH, { ...base, prompt: [[4], [5, 6]] });
  await post(PATH, { ...base, prompt: ["a", "b"] });
  expect(engine.samples.map((sample) => [...sample.promptIds])).toEqual([
    encodeRaw(prompt),
    [1, 2, 3],
    [4],
    [5, 6],
    [97],
    [98],
  ]);
});

test("a prompt gives the same text alone and inside a list; choices are numbered prompt by prompt", async () => {
  const { post } = openaiFixture();
  const options = { ...base, n: 2, seed: 7, max_tokens: 6, return_token_ids: true };
  const both = (await post(PATH, { ...options, prompt: ["one", "two"] })).body;
  const second = (await post(PATH, { ...options, prompt: "two" })).body;
  expect(both.choices.map((choice: Answer) => choice.index)).toEqual([0, 1, 2, 3]);
  expect(both.choices.slice(2).map((choice: Answer) => choice.token_ids)).toEqual(
    second.choices.map((choice: Answer) => choice.token_ids),
  );
  expect(second.choices[0].token_ids).not.toEqual(second.choices[1].token_ids);
  expect(both.choices[3].prompt_token_ids).toEqual(encodePlain("two"));
  expect(both.usage).toMatchObject({ prompt_tokens: 6, completion_tokens: 24, total_tokens: 30 });
});

test("the random seed is echoed and gives the same text again", async () => {
  const { post } = openaiFixture({ random: () => 0.123 });
  const first = (await post(PATH, base)).body;
  expect(first.seed).toBe(Math.floor(0.123 * 2 ** 32));
  const again = (await post(PATH, { ...base, seed: first.seed })).body;
  expect(again.choices).toEqual(first.choices);
  const other = (await post(PATH, { ...base, seed: first.seed + 1 })).body;
  expect(other.choices).not.toEqual(first.choices);
});

test("log-probs are the model's own whatever the sampling temperature is, the sampled token always among them", async () => {
  const { post } = openaiFixture();
  const { body } = await post(PATH, { ...base, temperature: 0.5, logprobs: 3, seed: 3, return_token_ids: true });
  const { tokens, token_logprobs, top_logprobs } = body.choices[0].logprobs;
  const ids: number[] = body.choices[0].token_ids;
  expect(tokens).toHaveLength(ids.length);
  ids.forEach((id, i) => {
    const row = fakeLogprobs([...encodePlain("Hello"), ...ids.slice(0, i)]);
    expect(token_logprobs[i]).toBeCloseTo(row[id]!, 6);
    expect(top_logprobs[i][tokens[i]]).toBe(token_logprobs[i]);
    const best = Math.max(...(Object.values(top_logprobs[i]) as number[]));
    expect(best).toBeCloseTo(Math.max(...row), 6);
    expect(Object.keys(top_logprobs[i]).length).toBeGreaterThanOrEqual(3);
    expect(Object.keys(top_logprobs[i]).length).toBeLessThanOrEqual(4);
  });
});

test("logprobs: 0 reports the sampled tokens alone", async () => {
  const { post } = openaiFixture({ says: "the teacher" });
  const { body } = await post(PATH, { ...base, logprobs: 0 });
  const { tokens, top_logprobs, text_offset } = body.choices[0].logprobs;
  expect(tokens).toEqual(["the ", "teacher", "<|im_end|>"]);
  expect(text_offset).toEqual([0, 4, 11]);
  expect(top_logprobs.map((top: object) => Object.keys(top))).toEqual([["the "], ["teacher"], ["<|im_end|>"]]);
});

test("tokens that are parts of characters, or have no text, keep names of their own", async () => {
  const { post } = openaiFixture({ script: () => [0xf0, 0x9f, 0x98, 0x80, TOKENIZER_SIZE + 1, 33] });
  const { body } = await post(PATH, { ...base, logprobs: 0 });
  expect(body.choices[0].text).toBe("😀!");
  expect(body.choices[0].logprobs.tokens).toEqual([
    "bytes:\\xf0",
    "bytes:\\x9f",
    "bytes:\\x98",
    "bytes:\\x80",
    `token_id:${TOKENIZER_SIZE + 1}`,
    "!",
    "<|im_end|>",
  ]);
  expect(body.choices[0].logprobs.text_offset).toEqual([0, 1, 1, 1, 1, 1, 2]);
});

test("echo repeats the prompt with its log-probs; max_tokens 0 only scores", async () => {
  const { post, engine } = openaiFixture({ says: "ing" });
  const { body } = await post(PATH, { ...base, prompt: "a = b", echo: true, logprobs: 2 });
  const [choice] = body.choices;
  expect(choice.text).toBe("a = bing");
  expect(choice.logprobs.tokens).toEqual(["a", " = ", "b", "ing", "<|im_end|>"]);
  expect(choice.logprobs.text_offset).toEqual([0, 1, 4, 5, 8]);
  expect(choice.logprobs.token_logprobs[0]).toBeNull();
  expect(choice.logprobs.top_logprobs[0]).toBeNull();
  const ids = encodePlain("a = b");
  expect(choice.logprobs.token_logprobs[2]).toBeCloseTo(fakeLogprobs(ids.slice(0, 2))[ids[2]!]!, 6);
  expect(Object.keys(choice.logprobs.top_logprobs[2]).length).toBeGreaterThanOrEqual(2);

  const scored = (await post(PATH, { ...base, prompt: "a = b", echo: true, logprobs: 2, max_tokens: 0 })).body;
  expect(scored.choices[0]).toMatchObject({ text: "a = b", finish_reason: "length" });
  expect(scored.choices[0].logprobs.token_logprobs).toEqual(choice.logprobs.token_logprobs.slice(0, 3));
  expect(scored.usage).toMatchObject({ prompt_tokens: 3, completion_tokens: 0, total_tokens: 3 });
  const fromIds = (await post(PATH, { ...base, prompt: [IM_END, ...ids], echo: true, max_tokens: 0 })).body;
  expect(fromIds.choices[0].text).toBe("<|im_end|>a = b");
  expect(engine.samples).toHaveLength(1);
});

test("prompt_logprobs answer as vLLM does, at any temperature, the prompt's own token always among them", async () => {
  const { post, engine } = openaiFixture();
  const prompt = [104, 105, 269, 33];
  for (const [k, temperature] of [
    [0, 1],
    [3, 0.7],
  ] as const) {
    const request = { ...base, prompt, prompt_logprobs: k, prompt_logprobs_temperature: temperature, max_tokens: 0 };
    const { body } = await post(PATH, request);
    const list = body.choices[0].prompt_logprobs;
    expect(list).toHaveLength(4);
    expect(list[0]).toBeNull();
    for (let i = 1; i < prompt.length; i++) {
      const row = fakeLogprobs(prompt.slice(0, i), temperature);
      const own = list[i][prompt[i]!];
      expect(own.logprob).toBeCloseTo(row[prompt[i]!]!, 5);
      expect(own.rank).toBe(1 + row.filter((l) => l > row[prompt[i]!]!).length);
      expect(own.decoded_token).toBe(decodeIds([prompt[i]!], true));
      const others = Object.keys(list[i]).filter((id) => Number(id) !== prompt[i]);
      expect(others.length).toBe(own.rank <= k ? k - 1 : k);
      for (const id of others) expect(list[i][id].logprob).toBeCloseTo(row[Number(id)]!, 5);
    }
    expect(body.sampling.prompt_logprobs_temperature).toBe(temperature);
  }
  expect(engine.scored.map((request) => request.temperature)).toEqual([1, 0.7]);
});

test("a prompt of one token has nothing to score", async () => {
  const { post } = openaiFixture();
  const { body } = await post(PATH, { ...base, prompt: [65], prompt_logprobs: 1, max_tokens: 0 });
  expect(body.choices[0].prompt_logprobs).toEqual([null]);
});

test("stop strings cut exactly, over token borders, and are named", async () => {
  const says = "one two STOP three";
  const { post, engine } = openaiFixture({ says });
  const cut = (await post(PATH, { ...base, stop: ["o STO", "never"], max_tokens: 50 })).body;
  expect(cut.choices[0]).toMatchObject({ text: "one tw", finish_reason: "stop", stop_reason: "o STO" });
  const kept = (await post(PATH, { ...base, stop: "o STO", include_stop_str_in_output: true, max_tokens: 50 })).body;
  expect(kept.choices[0]).toMatchObject({ text: "one two STO", finish_reason: "stop" });
  expect(cut.usage.completion_tokens).toBe(encodePlain("one two STOP").length);
  const none = (await post(PATH, { ...base, stop: "never", max_tokens: 50 })).body;
  expect(none.choices[0]).toMatchObject({ text: says, finish_reason: "stop", stop_reason: null });
  expect(engine.samples).toHaveLength(3);
});

test("text that might have become a stop string is given back at the end", async () => {
  const { post, stream } = openaiFixture({ says: "go ST" });
  expect((await post(PATH, { ...base, stop: "STOP" })).body.choices[0].text).toBe("go ST");
  const { chunks } = await stream(PATH, { ...base, stop: "STOP" });
  expect(joined(chunks)).toBe("go ST");
  const short = (await post(PATH, { ...base, stop: "STOP", max_tokens: 4 })).body;
  expect(short.choices[0]).toMatchObject({ text: "go S", finish_reason: "length" });
});

test("stop_token_ids end a choice and are named; ignore_eos goes on", async () => {
  const { post } = openaiFixture({ script: () => [97, 98, 99, IM_END, 100] });
  const stopped = (await post(PATH, { ...base, stop_token_ids: [99], return_token_ids: true })).body.choices[0];
  expect(stopped).toMatchObject({ text: "ab", finish_reason: "stop", stop_reason: 99, token_ids: [97, 98, 99] });
  const kept = (await post(PATH, { ...base, stop_token_ids: [99], include_stop_str_in_output: true })).body.choices[0];
  expect(kept.text).toBe("abc");
  const beyond = (await post(PATH, { ...base, ignore_eos: true, max_tokens: 5 })).body.choices[0];
  expect(beyond).toMatchObject({ text: "abcd", finish_reason: "length" });
  const special = await post(PATH, { ...base, ignore_eos: true, max_tokens: 5, skip_special_tokens: false });
  expect(special.body.choices[0].text).toBe("abc<|im_end|>d");
});

test("a stream tells the same as the plain answer", async () => {
  const { post, stream } = openaiFixture();
  const request = {
    ...base,
    prompt: ["one", "two"],
    n: 2,
    seed: 11,
    echo: true,
    logprobs: 2,
    prompt_logprobs: 1,
    return_token_ids: true,
    max_tokens: 8,
  };
  const plain = (await post(PATH, request)).body;
  const { chunks, done } = await stream(PATH, { ...request, stream_options: { include_usage: true } });
  expect(done).toBe(true);
  const last = chunks.pop();
  expect(last).toMatchObject({ choices: [], usage: plain.usage });
  expect(chunks[0]).toMatchObject({ seed: 11, sampling: plain.sampling, object: "text_completion", usage: null });
  for (const choice of plain.choices) {
    const mine = chunks.flatMap((chunk) => chunk.choices).filter((c) => c.index === choice.index);
    expect(joined(chunks, choice.index)).toBe(choice.text);
    expect(mine.flatMap((c) => c.token_ids ?? [])).toEqual(choice.token_ids);
    expect(mine.flatMap((c) => c.logprobs?.tokens ?? [])).toEqual(choice.logprobs.tokens);
    expect(mine.flatMap((c) => c.logprobs?.token_logprobs ?? [])).toEqual(choice.logprobs.token_logprobs);
    expect(mine.flatMap((c) => c.logprobs?.text_offset ?? [])).toEqual(choice.logprobs.text_offset);
    expect(mine[0].prompt_logprobs).toEqual(choice.prompt_logprobs);
    expect(mine.map((c) => c.finish_reason).filter(Boolean)).toEqual([choice.finish_reason]);
    expect(mine.at(-1).finish_reason).toBe(choice.finish_reason);
  }
});

test("no chunk ends inside a character", async () => {
  const says = "naïve 😀 数学 é";
  const { stream } = openaiFixture({ script: () => [...new TextEncoder().encode(says)] });
  const { chunks } = await stream(PATH, { ...base, max_tokens: 100 });
  expect(joined(chunks)).toBe(says);
  for (const chunk of chunks) expect(chunk.choices[0].text).not.toContain("\ufffd");
});

test("a failure in mid-stream is an error line without [DONE]; the model is released", async () => {
  const { stream, registry, post } = openaiFixture({ failAfterTokens: 3 });
  const { chunks, done } = await stream(PATH, { ...base, prompt: ["one", "two"], logprobs: 0, ignore_eos: true });
  expect(done).toBe(false);
  expect(chunks.at(-1).error).toMatchObject({ code: "engine_failed", type: "server_error" });
  expect(registry.held()).toBe(0);
  expect(await post(PATH, base)).toMatchObject({ status: 500, body: { error: { code: "engine_failed" } } });
  expect(registry.held()).toBe(0);
});
