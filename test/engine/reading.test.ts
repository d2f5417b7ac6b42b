import { afterAll, beforeAll, expect, test } from "vitest";
import { goldenDirectory, type Opened, openModel } from "./fixture.ts";

/** Fast scoring (shared beginnings, several texts in a run, long ones in stretches) against one text at a time in a fresh model. */
let opened: Opened;
let twin: Opened;
beforeAll(async () => {
  [opened, twin] = await Promise.all([
    openModel(goldenDirectory("qwen3"), 1024),
    openModel(goldenDirectory("qwen3"), 1023),
  ]);
});
afterAll(() => Promise.all([opened?.model.close(), twin?.model.close()]));

/** What the issue asks of the fast path in fp32. */
const CLOSE = 1e-4;

const words = (length: number, which: number): number[] =>
  Array.from({ length }, (_, i) => (i * i * 13 + which * 101 + 7) % 480);

/** One text at a time and all of it: where every token is wanted, nothing of the prefix cache can be used. */
async function slowly(ids: Int32Array, from: number): Promise<Float32Array> {
  const [result] = await twin.model.logprobs({ sequences: [{ ids }], temperature: 0.7 });
  expect(result!.cachedTokens).toBe(0);
  return result!.logprobs.subarray(from - 1);
}

function farthest(a: Float32Array, b: Float32Array): number {
  expect(a.length).toBe(b.length);
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
}

test("sixteen candidates of one question: read once, told in cachedTokens, and the numbers are those of each alone", async () => {
  const question = words(200, 1);
  const sequences = Array.from({ length: 16 }, (_, i) => ({
    ids: Int32Array.from([...question, ...words(12 + 9 * i, 50 + i)]),
    from: 200,
  }));
  const before = opened.model.load();
  const results = await opened.model.logprobs({ sequences, temperature: 0.7 });
  // Token 200 is predicted from token 199, which is read again with each: 12 blocks of 16 of the 199 before it are shared.
  expect(results.map(({ cachedTokens }) => cachedTokens).sort((a, b) => a - b)).toEqual([
    0,
    ...new Array(15).fill(192),
  ]);
  const after = opened.model.load();
  expect(after.cachedTokens - before.cachedTokens).toBe(15 * 192);
  for (const [i, { ids, from }] of sequences.entries()) {
    expect(farthest(results[i]!.logprobs, await slowly(ids, from))).toBeLessThan(CLOSE);
  }
  const again = await opened.model.logprobs({ sequences, temperature: 0.7 });
  expect(again.map(({ cachedTokens }) => cachedTokens)).toEqual(new Array(16).fill(192));
  for (const [i, { logprobs }] of again.entries()) expect(farthest(logprobs, results[i]!.logprobs)).toBeLessThan(CLOSE);
});

test("short and long texts mixed, of different ranges and options, each as alone", async () => {
  const texts = [3, 700, 17, 18, 19, 300, 64, 65, 2, 1000].map((length, i) => Int32Array.from(words(length, 7 * i)));
  const sequences = texts.map((ids, i) => ({ ids, from: i % 2 === 0 ? 1 : Math.ceil(ids.length / 2) }));
  const results = await opened.model.logprobs({ sequences, temperature: 0.7 });
  for (const [i, { ids, from }] of sequences.entries()) {
    expect(farthest(results[i]!.logprobs, await slowly(ids, from))).toBeLessThan(CLOSE);
  }
});

test("a text is the same whoever else is being scored", async () => {
  const ids = Int32Array.from(words(90, 3));
  const alone = await opened.model.logprobs({ sequences: [{ ids }], temperature: 1 });
  const others = Array.from({ length: 12 }, (_, i) =>
    opened.model.logprobs({
      sequences: [{ ids: Int32Array.from(words(60 + 5 * i, i)) }],
      temperature: 1,
      entropy: i % 2 > 0,
    }),
  );
  const beside = await opened.model.logprobs({ sequences: [{ ids }], temperature: 1 });
  await Promise.all(others);
  expect(beside[0]!.logprobs).toEqual(alone[0]!.logprobs);
});

test("a prompt that was scored need not be computed to be continued", async () => {
  const ids = Int32Array.from(words(150, 9));
  await opened.model.logprobs({ sequences: [{ ids, from: 149 }], temperature: 1 });
  let cached = 0;
  const params = { temperature: 0, topP: 1, topK: 0, maxTokens: 1 };
  for await (const event of opened.model.sample({ promptIds: ids, n: 1, params, seed: 1, stopIds: [] })) {
    if (event.type === "prompt") cached = event.cachedTokens;
  }
  expect(cached).toBe(144);
});
