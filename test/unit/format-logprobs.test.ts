/** OpenAI's completions form of log-probs, whatever the tokens are called. */
import { expect, test } from "vitest";
import { createCompletionLogprobs } from "../../src/api/openai/format-logprobs.ts";
import type { TextModel } from "../../src/text/text.ts";

const NAMES = ["constructor", "__proto__", "toString", "hasOwnProperty"];
const text = { bytesOf: (id: number) => Buffer.from(NAMES[id]!) } as Partial<TextModel> as TextModel;
const form = () => createCompletionLogprobs(text, { skipSpecial: true, asTokenIds: false });

/** As a client reads it. */
const read = (value: unknown): unknown => JSON.parse(JSON.stringify(value));
const entriesOf = (value: unknown): [string, number][] => Object.entries(read(value) as Record<string, number>);

test("alternatives named like an object's own properties are not lost", async () => {
  const ids = Int32Array.of(0, 1, 2, 3);
  const logprobs = Float32Array.of(-1, -2, -3, -4);
  const all = NAMES.map((name, id) => [name, -1 - id]);
  const sampled = form().sampled({ id: 1, logprob: -2, top: { ids, logprobs }, errorBound: undefined }, true);
  expect(entriesOf(sampled.top_logprobs[0])).toEqual(all);
  const alone = form().sampled({ id: 1, logprob: -2, top: undefined, errorBound: undefined }, true);
  expect(entriesOf(alone.top_logprobs[0])).toEqual([["__proto__", -2]]);
  const scores = {
    from: 1,
    cachedTokens: 0,
    k: 4,
    logprobs: Float32Array.of(-2),
    rank: Int32Array.of(2),
    topIds: ids,
    topLogprobs: logprobs,
  };
  const prompt = await form().prompt(Int32Array.of(0, 1), scores, 4);
  expect(entriesOf(prompt.top_logprobs[1])).toEqual(all);
});
