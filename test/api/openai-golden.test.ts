/** The routes over a real tokenizer and the real engine: what comes over HTTP equals the stored reference numbers. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { EngineModel } from "../../src/engine/engine.ts";
import { createOnnxEngine } from "../../src/engine/onnx/engine.ts";
import { openCheckpoint } from "../../src/model/open.ts";
import { createTextService } from "../../src/text/client.ts";
import type { TextService } from "../../src/text/text.ts";
import { type Answer, type Fixture, openaiFixture } from "./openai-fixture.ts";

const directory = new URL("../golden/models/llama", import.meta.url).pathname;
/** What fp32 reaches (golden README). */
const LOGPROB_TOLERANCE = 1e-3;
/** Below it another kernel may choose the other token. */
const MIN_MARGIN = 1e-3;

interface GoldenPrompt {
  text: string;
  ids: number[];
  "logprobs_T1.0": (number | null)[];
  "logprobs_T0.7": (number | null)[];
  greedy_ids: number[];
  greedy_logprobs: number[];
  greedy_margin: number[];
}

let texts: TextService;
let engine: EngineModel;
let cacheDir: string;
let fixture: Fixture;
let prompts: GoldenPrompt[];

beforeAll(async () => {
  cacheDir = await mkdtemp(join(tmpdir(), "preceptor-openai-"));
  prompts = JSON.parse(await readFile(join(directory, "expected.json"), "utf8")).prompts;
  const checkpoint = await openCheckpoint(directory);
  texts = createTextService();
  const options = { precision: "fp32", contextLength: 512, threads: 1, device: "cpu" } as const;
  engine = await createOnnxEngine({ cacheDir }).open(checkpoint, options);
  fixture = openaiFixture({ engine, text: await texts.open(directory) });
});
afterAll(async () => {
  await engine?.close();
  await texts?.close();
  await rm(cacheDir, { recursive: true, force: true });
});

describe.each([
  [1, "logprobs_T1.0"],
  [0.7, "logprobs_T0.7"],
] as const)("prompt_logprobs at temperature %d", (temperature, key) => {
  test("equal the reference for every prompt, as text and as ids", async () => {
    for (const prompt of [prompts.map(({ text }) => text), prompts.map(({ ids }) => ids)]) {
      const request = { model: "fake", prompt, prompt_logprobs: 3, prompt_logprobs_temperature: temperature };
      const { body } = await fixture.post("/v1/completions", { ...request, max_tokens: 0, return_token_ids: true });
      expect(body.error).toBeUndefined();
      prompts.forEach(({ ids, [key]: expected }, p) => {
        const choice = body.choices[p];
        expect(choice.prompt_token_ids).toEqual(ids);
        expect(choice.prompt_logprobs[0]).toBeNull();
        for (let i = 1; i < ids.length; i++) {
          const { logprob, rank } = choice.prompt_logprobs[i][ids[i]!];
          expect(Math.abs(logprob - expected[i]!)).toBeLessThan(LOGPROB_TOLERANCE);
          const entries: Answer[] = Object.values(choice.prompt_logprobs[i]);
          expect(entries.filter((entry) => entry.logprob > logprob)).toHaveLength(Math.min(rank - 1, 3));
        }
      });
    }
  });
});

test("prompt_logprobs -1 are whole distributions with the reference among them, from any position on", async () => {
  const { ids, "logprobs_T0.7": expected } = prompts[0]!;
  const from = 3;
  const request = { model: "fake", prompt: ids, prompt_logprobs_temperature: 0.7, max_tokens: 0 };
  const best = (await fixture.post("/v1/completions", { ...request, prompt_logprobs: 20 })).body.choices[0];
  const asked = { ...request, prompt_logprobs: -1, prompt_logprobs_from: from };
  const whole = (await fixture.post("/v1/completions", asked)).body.choices[0];
  expect(whole.prompt_logprobs).toHaveLength(ids.length);
  expect(whole.prompt_logprobs.slice(0, from)).toEqual([null, null, null]);
  for (let i = from; i < ids.length; i++) {
    const entry: Answer = whole.prompt_logprobs[i];
    expect(Object.keys(entry)).toHaveLength(engine.vocabSize);
    expect(Math.abs(entry[ids[i]!].logprob - expected[i]!)).toBeLessThan(LOGPROB_TOLERANCE);
    const mass = Object.values<Answer>(entry).reduce((sum, { logprob }) => sum + Math.exp(logprob), 0);
    expect(mass).toBeCloseTo(1, 4);
    for (const [id, known] of Object.entries<Answer>(best.prompt_logprobs[i])) {
      expect(entry[id].logprob).toBeCloseTo(known.logprob, 5);
      expect(entry[id].decoded_token).toBe(known.decoded_token);
    }
  }
});

test("greedy text equals the reference up to the first close call, streamed and not", async () => {
  const request = {
    model: "fake",
    prompt: prompts.map(({ text }) => text),
    temperature: 0,
    max_tokens: 24,
    ignore_eos: true,
    logprobs: 0,
    return_token_ids: true,
  };
  const { body } = await fixture.post("/v1/completions", request);
  expect(body.error).toBeUndefined();
  const { chunks, done } = await fixture.stream("/v1/completions", request);
  expect(done).toBe(true);
  prompts.forEach(({ greedy_ids, greedy_logprobs, greedy_margin }, p) => {
    const close = greedy_margin.findIndex((margin) => margin < MIN_MARGIN);
    const certain = close < 0 ? greedy_ids.length : close;
    const choice = body.choices[p];
    expect(choice.token_ids).toHaveLength(24);
    expect(choice.token_ids.slice(0, certain)).toEqual(greedy_ids.slice(0, certain));
    for (let i = 0; i < certain; i++) {
      expect(Math.abs(choice.logprobs.token_logprobs[i] - greedy_logprobs[i]!)).toBeLessThan(LOGPROB_TOLERANCE);
    }
    const mine = chunks.flatMap((chunk) => chunk.choices).filter((c) => c.index === p);
    expect(mine.flatMap((c) => c.token_ids ?? [])).toEqual(choice.token_ids);
    expect(mine.map((c) => c.text).join("")).toBe(choice.text);
  });
});

test("a sampled prompt gives the same text alone and beside others", async () => {
  const request = { model: "fake", seed: 42, n: 2, max_tokens: 12, return_token_ids: true, ignore_eos: true };
  const list = (await fixture.post("/v1/completions", { ...request, prompt: prompts.map(({ text }) => text) })).body;
  const alone = (await fixture.post("/v1/completions", { ...request, prompt: prompts[2]!.text })).body;
  expect(list.choices.slice(4, 6).map((c: Answer) => c.token_ids)).toEqual(
    alone.choices.map((c: Answer) => c.token_ids),
  );
});

test("a chat runs through the checkpoint's own template", async () => {
  const messages = [{ role: "user", content: "What is 27?" }];
  const tokens = (await fixture.post("/v1/tokenize", { model: "fake", messages })).body.tokens;
  expect(tokens).toEqual(prompts[2]!.ids);
  const request = { model: "fake", messages, temperature: 0, max_tokens: 8, ignore_eos: true, return_token_ids: true };
  const { body } = await fixture.post("/v1/chat/completions", request);
  expect(body.choices[0].token_ids).toEqual(prompts[2]!.greedy_ids.slice(0, 8));
  const { chunks } = await fixture.stream("/v1/chat/completions", request);
  const streamed = chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join("");
  expect(streamed).toBe(body.choices[0].message.content);
});
