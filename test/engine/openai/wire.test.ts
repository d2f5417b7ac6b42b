/** What real servers answer is read as they mean it; see recorded/README.md. */
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { type Connection, createConnection } from "../../../src/engine/openai/connection.ts";
import { RemoteFailure } from "../../../src/engine/openai/failure.ts";
import { createHttp } from "../../../src/engine/openai/http.ts";
import { readCard } from "../../../src/engine/openai/probe.ts";
import { readAnswer, readPromptLogprobs, type WireAnswer, type WireToken } from "../../../src/engine/openai/wire.ts";
import { farthest } from "./fixture.ts";

const QWEN = { vocabSize: 151_936, n: 2 };
const SMOL = { vocabSize: 49_152, n: 2 };

const textOf = (name: string): Promise<string> => readFile(new URL(`recorded/${name}`, import.meta.url), "utf8");
const jsonOf = async (name: string): Promise<unknown> => JSON.parse(await textOf(name));

/** A connection to a server that answers everything with one text; its version apart. */
async function serve(
  body: string,
  { type = "application/json", status = 200, version = "0.33.0" } = {},
): Promise<Connection> {
  const server = createServer(({ url }, response) => {
    if (url === "/version") response.end(JSON.stringify({ version }));
    else response.writeHead(status, { "content-type": type }).end(body);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return createConnection({ send: createHttp(), baseUrl: `http://127.0.0.1:${port}/v1`, key: undefined });
}

/** A connection to a server that answers everything with one recorded text. */
async function replay(name: string, status = 200): Promise<Connection> {
  return serve(await textOf(name), {
    status,
    ...(name.endsWith(".sse") ? { type: "text/event-stream; charset=utf-8" } : {}),
  });
}

async function answersOf(name: string, idsFrom: Parameters<typeof readAnswer>[1], bounds: typeof QWEN) {
  const answers: WireAnswer[] = [];
  const { events } = await replay(name);
  for await (const event of events("/completions", {}, new AbortController().signal)) {
    answers.push(readAnswer(event, idsFrom, bounds));
  }
  const choices = answers.flatMap((answer) => answer.choices);
  const of = (index: number): WireToken[] => choices.flatMap((choice) => (choice.index === index ? choice.tokens : []));
  const finishOf = (index: number) => choices.filter((choice) => choice.index === index).map(({ finish }) => finish);
  return { answers, of, finishOf, usages: answers.flatMap(({ usage }) => (usage ? [usage] : [])) };
}

const idsOf = (tokens: readonly WireToken[]): number[] => tokens.map(({ id }) => id);

test("vLLM: a whole answer, its ids from either place, its alternatives in falling order", async () => {
  const value = await jsonOf("vllm-completion.json");
  for (const idsFrom of ["token_ids", "tokens"] as const) {
    const { choices, usage, fingerprint } = readAnswer(value, idsFrom, QWEN);
    expect(choices).toHaveLength(1);
    const [{ tokens, finish }] = choices as [(typeof choices)[number]];
    expect(idsOf(tokens)).toEqual([12095, 13]);
    expect(tokens[0]!.logprob).toBe(-0.3127231001853943);
    expect([...tokens[0]!.top!.ids]).toEqual([12095]);
    expect([...tokens[1]!.top!.ids]).toEqual([11, 13]);
    expect(farthest(tokens[1]!.top!.logprobs, [-0.9872634410858154, -1.0497634410858154])).toBeLessThan(1e-6);
    expect(finish).toBe("length");
    expect(usage).toEqual({ promptTokens: 5, cachedTokens: 0 });
    expect(fingerprint).toBe("vllm-0.33.0-5e1d7a3c");
  }
});

test("vLLM: a stream of two choices, a stop token that has no text, and the usage at the end", async () => {
  const { of, finishOf, usages, answers } = await answersOf("vllm-stream.sse", "token_ids", QWEN);
  expect(idsOf(of(0))).toEqual([12095, 13, 151645]);
  expect(idsOf(of(1))).toEqual([279, 6722, 3283]);
  expect(of(1).map(({ logprob }) => logprob)).toEqual([-3.4377231001853943, -1.7734375, -0.734375]);
  expect([...of(1)[0]!.top!.ids]).toEqual([12095, 279]);
  expect(finishOf(0)).toEqual([null, null, "stop"]);
  expect(finishOf(1)).toEqual([null, null, "length"]);
  expect(usages).toEqual([{ promptTokens: 5, cachedTokens: 0 }]);
  expect(answers.at(-1)!.fingerprint).toBe("vllm-0.33.0-5e1d7a3c");
});

test("vLLM: an error in the middle of a stream ends it in the server's words", async () => {
  const { events } = await replay("vllm-stream-error.sse");
  const seen: unknown[] = [];
  const reading = (async () => {
    for await (const event of events("/completions", {}, new AbortController().signal)) seen.push(event);
  })();
  await expect(reading).rejects.toMatchObject({
    kind: "failed",
    message: 'broke off with: "The server had an error while processing your request."',
  });
  expect(seen).toHaveLength(1);
});

test("vLLM: prompt_logprobs with ranks, of the span that was asked for", async () => {
  const value = await jsonOf("vllm-prompt-logprobs.json");
  const ids = Int32Array.of(785, 6722, 315, 9625, 374);
  const read = (from: number, to: number) => readPromptLogprobs(value, { ids, from, to, vocabSize: QWEN.vocabSize });
  const all = read(1, 5);
  expect(all.map(({ logprob }) => logprob)).toEqual([-8.311523437, -0.4248046875, -4.2021484375, -0.197265625]);
  expect(all.map(({ rank }) => rank)).toEqual([451, 1, 5, 1]);
  // The own token stands first in JSON; here the order is that of the log-probs.
  expect(all.map((position) => [...position.ids])).toEqual([
    [2701, 1482, 6722],
    [315, 3283],
    [279, 9625, 264],
    [374, 11],
  ]);
  expect(read(3, 4)).toEqual([all[2]]);
  expect(readAnswer(value, "token_ids", { ...QWEN, n: 1 }).usage).toEqual({ promptTokens: 5, cachedTokens: 0 });
  const other = Int32Array.of(785, 6722, 315, 9625, 375);
  expect(() => readPromptLogprobs(value, { ids: other, from: 1, to: 5, vocabSize: QWEN.vocabSize })).toThrow(
    /own token 375/,
  );
  expect(() => readPromptLogprobs(value, { ids: ids.subarray(0, 4), from: 1, to: 4, vocabSize: 151_936 })).toThrow(
    /5 of the/,
  );
});

test("refusals are passed on in the server's own words", async () => {
  for (const [name, status, said] of [
    ["vllm-error-context.json", 400, /maximum context length is 2048 tokens.*contains 2100 input tokens/],
    ["vllm-error-model.json", 404, /The model `gpt-4` does not exist\. Valid aliases: Qwen\/Qwen2\.5-0\.5B-Instruct\./],
    ["llama-error.json", 400, /Prompt contains invalid tokens/],
  ] as const) {
    const failure = await (await replay(name, status)).post("/completions", {}).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(RemoteFailure);
    expect(failure).toMatchObject({ kind: "refused", status });
    expect((failure as RemoteFailure).message).toMatch(said);
  }
});

test("the served model's card: vLLM's beside its adapter's, llama.cpp's with its vocabulary", async () => {
  const vllm = await readCard(await replay("vllm-models.json"), "Qwen/Qwen2.5-0.5B-Instruct");
  expect(vllm).toMatchObject({ contextLength: 2048, vocabSize: null });
  const llama = await readCard(await replay("llama-models.json"), "SmolLM2-135M-Instruct-Q4_1.gguf");
  expect(llama).toMatchObject({ contextLength: 2048, vocabSize: 49_152 });
  await expect(readCard(await replay("vllm-models.json"), "gpt-4")).rejects.toThrow(
    'does not serve "gpt-4", but "Qwen/Qwen2.5-0.5B-Instruct", "preceptor-0123456789abcdef"',
  );
});

test("the card's identity is that of the server, not of the moment", async () => {
  const body = await textOf("vllm-models.json");
  const at = async (created: number, version: string): Promise<string> => {
    const connection = await serve(body.replaceAll("1790000000", String(created)), { version });
    return (await readCard(connection, "Qwen/Qwen2.5-0.5B-Instruct")).identity;
  };
  expect(await at(1, "0.33.0")).toBe(await at(2, "0.33.0"));
  expect(await at(1, "0.33.0")).not.toBe(await at(1, "0.33.1"));
});

test("llama.cpp: ids from the log-probs, several alternatives, a whole answer", async () => {
  const { choices, usage } = readAnswer(await jsonOf("llama-completion.json"), "content", SMOL);
  const [{ tokens, finish }] = choices as [(typeof choices)[number]];
  expect(idsOf(tokens)).toEqual([808, 282]);
  expect([...tokens[0]!.top!.ids]).toEqual([808, 768]);
  expect(tokens[0]!.logprob).toBeCloseTo(tokens[0]!.top!.logprobs[0]!, 6);
  expect(finish).toBe("length");
  expect(usage?.promptTokens).toBe(4);
});

test("llama.cpp: a stream of two choices, whose last chunks have no tokens", async () => {
  const { of, finishOf, usages } = await answersOf("llama-stream.sse", "content", SMOL);
  for (const index of [0, 1]) {
    expect(of(index)).toHaveLength(3);
    expect(of(index).every(({ logprob }) => logprob < 0)).toBe(true);
    expect(finishOf(index)).toEqual([null, null, null, "length"]);
  }
  expect(usages.length).toBeGreaterThan(0);
  expect(usages.every(({ promptTokens }) => promptTokens === 4)).toBe(true);
});

test("llama.cpp: the end-of-turn token is among the ids", async () => {
  const { of, finishOf } = await answersOf("llama-stream-eos.sse", "content", SMOL);
  expect(idsOf(of(0))).toEqual([2]);
  expect(finishOf(0)).toEqual([null, "stop"]);
});

test("what cannot be is garbage: other choices, other ids, other log-probs, other ends", async () => {
  const base = { index: 0, text: "", finish_reason: null, token_ids: [7], logprobs: null };
  const read = (choice: object) => () =>
    readAnswer({ choices: [{ ...base, ...choice }] }, "token_ids", { vocabSize: 10, n: 2 });
  const logprobs = { tokens: ["token_id:7"], token_logprobs: [-1], top_logprobs: [null], text_offset: [0] };
  expect(read({ logprobs })().choices[0]!.tokens).toEqual([{ id: 7, logprob: -1, bound: 0, top: null }]);
  // An estimate may come out a little above what a probability can be.
  const estimated = { ...logprobs, token_logprobs: [0.1], error_bound: [0.1] };
  expect(read({ logprobs: estimated })().choices[0]!.tokens).toEqual([{ id: 7, logprob: 0.1, bound: 0.1, top: null }]);
  for (const choice of [
    { index: 2 },
    { index: -1 },
    { index: "0" },
    { token_ids: [10] },
    { token_ids: [-1] },
    { token_ids: [1.5] },
    { token_ids: "7" },
    { token_ids: [7, 8], logprobs },
    { finish_reason: "abort" },
    { finish_reason: 3 },
    { logprobs: { ...logprobs, token_logprobs: [0.5] } },
    { logprobs: { ...logprobs, error_bound: [-1] } },
    { logprobs: { ...logprobs, error_bound: ["0.1"] } },
    { logprobs: { ...logprobs, error_bound: [0.1, 0.1] } },
    { logprobs: { ...logprobs, token_logprobs: [0.5], error_bound: [0.1] } },
    { logprobs: { ...logprobs, token_logprobs: [null] } },
    { logprobs: { ...logprobs, token_logprobs: ["-1"] } },
    { logprobs: { ...logprobs, top_logprobs: [{ "token_id:7": -1, "token_id:10": -2 }] } },
    { logprobs: { ...logprobs, top_logprobs: [{ "token_id:7": 0.5 }] } },
  ]) {
    expect(read(choice), JSON.stringify(choice)).toThrow(RemoteFailure);
  }
  for (const value of [null, [], "text", 3, {}, { choices: {} }, { choices: [null] }]) {
    expect(() => readAnswer(value, "token_ids", { vocabSize: 10, n: 1 }), JSON.stringify(value)).toThrow(RemoteFailure);
  }
});

const PROMPT_IDS = Int32Array.of(3, 7);
const promptOf = (position: object) => ({ choices: [{ prompt_logprobs: [null, position] }] });
const readPrompt = (position: object) => () =>
  readPromptLogprobs(promptOf(position), { ids: PROMPT_IDS, from: 1, to: 2, vocabSize: 20 });
const score = (logprob: number) => ({ logprob });

test("an id has one name, and is reported once", () => {
  for (const name of ["1e1", "0x3", " 1", "1 ", "01", "+1", "-0", "1.0", "", "token_id:1"]) {
    expect(readPrompt({ 7: score(-1), [name]: score(-2) }), JSON.stringify(name)).toThrow(/named a token/);
  }
  expect(readPrompt({ 7: score(-1), 0: score(-2), 12: score(-2) })()).toHaveLength(1);
  const named = (top: object) => () =>
    readAnswer(
      { choices: [{ index: 0, logprobs: { tokens: ["token_id:7"], token_logprobs: [-1], top_logprobs: [top] } }] },
      "tokens",
      { vocabSize: 20, n: 1 },
    );
  expect(named({ "token_id:7": -1, "token_id:2": -3 })).not.toThrow();
  expect(named({ "token_id:7": -1, "token_id:07": -3 })).toThrow(RemoteFailure);
  const entry = (id: number) => ({ id, logprob: -2 });
  const content =
    (...ids: number[]) =>
    () =>
      readAnswer(
        { choices: [{ index: 0, logprobs: { content: [{ ...entry(7), top_logprobs: ids.map(entry) }] } }] },
        "content",
        { vocabSize: 20, n: 1 },
      );
  expect(content(7, 8)).not.toThrow();
  expect(content(7, 8, 7)).toThrow(/token 7 twice/);
});

test("probabilities of one position sum to no more than 1, rounding to bf16 aside", () => {
  const half = Math.log(0.5);
  expect(readPrompt({ 7: score(half), 1: score(half) })).not.toThrow();
  expect(readPrompt({ 7: score(half), 1: score(Math.log(0.515)) })).not.toThrow();
  expect(readPrompt({ 7: score(half), 1: score(Math.log(0.53)) })).toThrow("sum to 1.03");
  expect(readPrompt({ 7: score(0.019) })).not.toThrow();
  expect(readPrompt({ 7: score(0.021) })).toThrow(RemoteFailure);
  // The sampled token counts where it is not among its alternatives, and once where it is.
  const sampled = (top: object) => () =>
    readAnswer(
      { choices: [{ index: 0, token_ids: [7], logprobs: { token_logprobs: [half], top_logprobs: [top] } }] },
      "token_ids",
      { vocabSize: 20, n: 1 },
    );
  expect(sampled({ "token_id:7": half, "token_id:8": half })).not.toThrow();
  expect(sampled({ "token_id:9": Math.log(0.2), "token_id:8": half })).toThrow("sum to 1.20");
});

test("nonsense as deep or as long as JSON allows is garbage, in few words", () => {
  const deep = JSON.parse("[".repeat(100_000) + "]".repeat(100_000)) as unknown;
  const long = "x".repeat(1_000_000);
  for (const nonsense of [deep, { deep }, long, { [long]: long }, [long, long]]) {
    for (const value of [
      { choices: nonsense },
      { choices: [{ index: nonsense }] },
      { choices: [{ index: 0, token_ids: [nonsense] }] },
      { choices: [{ index: 0, finish_reason: nonsense }] },
    ]) {
      let failure: unknown;
      try {
        readAnswer(value, "token_ids", { vocabSize: 10, n: 1 });
      } catch (error) {
        failure = error;
      }
      expect(failure).toMatchObject({ kind: "garbage" });
      expect((failure as Error).message.length).toBeLessThan(200);
    }
  }
});

test("a server with very many models, or very long names, is quoted in few words", async () => {
  const data = [{ id: "x".repeat(100_000) }, ...Array.from({ length: 10_000 }, (_, i) => ({ id: `model-${i}` }))];
  const many = await serve(JSON.stringify({ data }));
  const failure = (await readCard(many, "mine").catch((error: unknown) => error)) as Error;
  expect(failure.message).toMatch(/^does not serve "mine", but "xxx.*…, "model-0", .*"model-6", 9993 more$/);
  expect(failure.message.length).toBeLessThan(400);
});

test("a card as deep as JSON allows has an identity all the same", async () => {
  const deep = `${"[".repeat(50_000)}${"]".repeat(50_000)}`;
  const card = (root: string) => serve(`{"data":[{"id":"mine","root":${root},"max_model_len":8}]}`);
  const { identity, contextLength } = await readCard(await card(deep), "mine");
  expect(contextLength).toBe(8);
  expect(identity.length).toBeLessThan(10_000);
  expect(identity).not.toBe((await readCard(await card('"/models/mine"'), "mine")).identity);
});
