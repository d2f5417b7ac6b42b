/** Log-probs that a remote server cannot report at the temperature of the answer: estimates, and said to be. */
import { expect, test } from "vitest";
import { appendCompletionLogprobs, emptyCompletionLogprobs } from "../../src/api/openai/format-logprobs.ts";
import { connect, fake } from "../engine/openai/fixture.ts";
import { rowOf, stateOf, TOY } from "../engine/openai/toy-model.ts";
import { VOCAB_SIZE } from "./fakes.ts";
import { type Answer, openaiFixture } from "./openai-fixture.ts";

const toy = { ...TOY, vocabSize: VOCAB_SIZE };

/** A server with weights that are tempered at 0.7, and registered as that; or with plain ones. */
async function remote(tempered: number) {
  const { model } = await connect([await fake({ toy: { ...toy, divisor: tempered } })], { tempered });
  return openaiFixture({ engine: model });
}

/** Log-probs at 1 of the ids that follow a prompt, under the weights that are not tempered. */
const truth = (prompt: number[], ids: number[]): number[] =>
  ids.map((id, i) => rowOf(toy, stateOf([...prompt, ...ids.slice(0, i)]))[id]!);

const COMPLETE = { model: "fake", prompt: [5, 60, 33], max_tokens: 6, ignore_eos: true, return_token_ids: true };
const CHAT = {
  model: "fake",
  messages: [{ role: "user", content: "hi" }],
  max_tokens: 6,
  ignore_eos: true,
  logprobs: true,
  top_logprobs: 2,
  return_token_ids: true,
};

test("completions: the bound stands beside each estimate, and holds; in a stream too", async () => {
  const { post, stream } = await remote(0.7);
  const [choice] = (await post("/v1/completions", { ...COMPLETE, logprobs: 2, seed: 3 })).body.choices;
  const { token_logprobs: logprobs, error_bound: bounds } = choice.logprobs;
  expect(bounds).toHaveLength(6);
  truth([5, 60, 33], choice.token_ids).forEach((logprob, i) => {
    expect(bounds[i]).toBeGreaterThan(0);
    expect(Math.abs(logprobs[i] - logprob)).toBeLessThanOrEqual(bounds[i]);
  });
  const { chunks } = await stream("/v1/completions", { ...COMPLETE, logprobs: 2, seed: 3 });
  expect(chunks.flatMap((chunk) => chunk.choices[0].logprobs?.error_bound ?? [])).toEqual(bounds);
});

test("chats: it stands in the token's own entry", async () => {
  const { post } = await remote(0.7);
  const { choices, prompt_token_ids: prompt } = (await post("/v1/chat/completions", CHAT)).body;
  const { content } = choices[0].logprobs;
  expect(content).toHaveLength(6);
  truth(prompt, choices[0].token_ids).forEach((logprob, i) => {
    expect(Math.abs(content[i].logprob - logprob)).toBeLessThanOrEqual(content[i].error_bound);
  });
});

test("exact log-probs have none", async () => {
  const { post } = await remote(1);
  const [choice] = (await post("/v1/completions", { ...COMPLETE, logprobs: 2 })).body.choices;
  expect(choice.logprobs).not.toHaveProperty("error_bound");
  expect(choice.logprobs.token_logprobs[0]).toBeCloseTo(truth([5, 60, 33], choice.token_ids)[0]!, 5);
  const chat = (await post("/v1/chat/completions", CHAT)).body.choices[0];
  expect(chat.logprobs.content.some((entry: Answer) => "error_bound" in entry)).toBe(false);
});

test("an exact stretch before an estimated one keeps the arrays together", () => {
  const one = (error_bound?: number[]) => ({
    ...emptyCompletionLogprobs(),
    tokens: ["a"],
    token_logprobs: [-1],
    ...(error_bound ? { error_bound } : {}),
  });
  const all = emptyCompletionLogprobs();
  for (const piece of [one(), one([0.1]), one()]) appendCompletionLogprobs(all, piece);
  expect(all.error_bound).toEqual([null, 0.1, null]);
});
