import { afterAll, beforeAll, expect, test } from "vitest";
import { MAX_SLOTS } from "../../src/engine/onnx/limits.ts";
import { openAdapter } from "../../src/model/adapter.ts";
import {
  distributionsOf,
  farthest,
  goldenDirectory,
  type Opened,
  openModel,
  readGolden,
  sampleAll,
} from "./fixture.ts";

let opened: Opened;
let promptIds: Int32Array;
beforeAll(async () => {
  opened = await openModel(goldenDirectory("llama"), 200);
  promptIds = Int32Array.from((await readGolden("llama")).prompts[1]!.ids);
});
afterAll(() => opened?.model.close());

test("the same seed gives the same sample, another seed another", async () => {
  const [a, b, c] = await Promise.all([1, 1, 2].map((seed) => sampleAll(opened.model, { promptIds, seed })));
  expect(a).toEqual(b);
  expect(a![0]!.ids).not.toEqual(c![0]!.ids);
});

test("continuation i of n is stream (seed, i): the first of many equals the only one", async () => {
  const many = await sampleAll(opened.model, { promptIds, n: 5 });
  const [one] = await sampleAll(opened.model, { promptIds, n: 1 });
  expect(many[0]).toEqual(one);
  expect(new Set(many.map(({ ids }) => ids.join())).size).toBe(5);
});

test("draws follow the model's distribution", async () => {
  const n = 600;
  const draws = await sampleAll(opened.model, { promptIds, n, params: { maxTokens: 1, temperature: 0.7 } });
  const ids = Int32Array.from([...promptIds, 0]);
  const lp = await distributionsOf(opened.model, { ids, from: ids.length - 1, to: ids.length, temperature: 0.7 });
  const likely = [...lp.keys()].sort((a, b) => lp[b]! - lp[a]!).slice(0, 3);
  for (const id of likely) {
    const p = Math.exp(lp[id]!);
    const share = draws.filter((draw) => draw.ids[0] === id).length / n;
    // Five standard deviations.
    expect(Math.abs(share - p)).toBeLessThan(5 * Math.sqrt((p * (1 - p)) / n));
  }
});

test("reported log-probs are those of scoring, at the sampling temperature and at another", async () => {
  for (const [temperature, logprobsTemperature] of [
    [0.7, undefined],
    [0.7, 1],
    [0, 0.7],
    [0.05, 1],
  ] as const) {
    const request = { promptIds, params: { temperature }, ...(logprobsTemperature ? { logprobsTemperature } : {}) };
    const [sample] = await sampleAll(opened.model, request);
    const sequences = [{ ids: Int32Array.from([...promptIds, ...sample!.ids]), from: promptIds.length }];
    const [scored] = await opened.model.logprobs({ sequences, temperature: logprobsTemperature ?? temperature });
    expect(farthest(sample!.logprobs, scored!.logprobs)).toBeLessThan(1e-4);
  }
});

test("the most likely alternatives are those of scoring", async () => {
  const [sample] = await sampleAll(opened.model, { promptIds, topLogprobs: 4 });
  const sequences = [{ ids: Int32Array.from([...promptIds, ...sample!.ids]), from: promptIds.length }];
  const [scored] = await opened.model.logprobs({ sequences, temperature: 1, topK: 4 });
  expect(sample!.tops.flatMap(({ ids }) => [...ids])).toEqual([...scored!.topIds!]);
  expect(
    farthest(
      sample!.tops.flatMap(({ logprobs }) => [...logprobs]),
      scored!.topLogprobs!,
    ),
  ).toBeLessThan(1e-4);
});

test("top-k 1 and a tiny top-p are greedy", async () => {
  const [greedy] = await sampleAll(opened.model, { promptIds, params: { temperature: 0 } });
  const [topK] = await sampleAll(opened.model, { promptIds, params: { topK: 1 } });
  const [topP] = await sampleAll(opened.model, { promptIds, params: { topP: 1e-6 } });
  expect(topK!.ids).toEqual(greedy!.ids);
  expect(topP!.ids).toEqual(greedy!.ids);
});

test("a stop id ends a sequence and is its last token", async () => {
  const [free] = await sampleAll(opened.model, { promptIds });
  const stop = free!.ids[4]!;
  const [stopped] = await sampleAll(opened.model, { promptIds, stopIds: [stop] });
  expect(stopped).toMatchObject({ reason: "stop" });
  expect(stopped!.ids).toEqual(free!.ids.slice(0, free!.ids.indexOf(stop) + 1));
});

test("shouldStop ends one sequence exactly where it says, whatever the reader's pace", async () => {
  const free = await sampleAll(opened.model, { promptIds, n: 3, params: { maxTokens: 30 } });
  const stopped = await sampleAll(opened.model, {
    promptIds,
    n: 3,
    params: { maxTokens: 30 },
    shouldStop: (index, ids) => index === 1 && ids.length === 4,
  });
  expect(stopped[1]).toMatchObject({ ids: free[1]!.ids.slice(0, 4), reason: "stop" });
  expect([stopped[0], stopped[2]]).toEqual([free[0], free[2]]);
  expect(stopped[0]!.reason).toBe("length");
});

test("maxTokens and the context bound a sequence", async () => {
  const long = Int32Array.from({ length: 195 }, (_, i) => (i * 3) % 400);
  const [last] = await sampleAll(opened.model, { promptIds: long, params: { maxTokens: 50 } });
  expect(last).toMatchObject({ reason: "length" });
  expect(last!.ids).toHaveLength(5);
  expect(await sampleAll(opened.model, { promptIds, n: 2, params: { maxTokens: 0 } })).toEqual([
    { ids: [], logprobs: [], tops: [], reason: "length" },
    { ids: [], logprobs: [], tops: [], reason: "length" },
  ]);
});

test("more sequences than slots wait and all finish, as they would alone", async () => {
  const n = MAX_SLOTS + 10;
  const many = await sampleAll(opened.model, { promptIds, n, params: { maxTokens: 5 } });
  expect(many.every(({ ids, reason }) => ids.length === 5 && reason === "length")).toBe(true);
  const few = await sampleAll(opened.model, { promptIds, n: 3, params: { maxTokens: 5 } });
  expect(many.slice(0, 3)).toEqual(few);
});

test("adapters and the base are decoded side by side and do not mix", async () => {
  const adapter = await openAdapter(`${goldenDirectory("llama")}/adapter`, opened.checkpoint);
  const base = await sampleAll(opened.model, { promptIds });
  const adapted = await sampleAll(opened.model, { promptIds, adapter });
  expect(adapted[0]!.ids).not.toEqual(base[0]!.ids);
  const together = await Promise.all([
    sampleAll(opened.model, { promptIds }),
    sampleAll(opened.model, { promptIds, adapter }),
    sampleAll(opened.model, { promptIds, adapter: null }),
  ]);
  expect(together).toEqual([base, adapted, base]);
});

test("sampling and scoring share the machine", async () => {
  const [alone] = await sampleAll(opened.model, { promptIds, params: { maxTokens: 30 } });
  const ids = Int32Array.from({ length: 200 }, (_, i) => (i * 11) % 500);
  const [scores, [beside]] = await Promise.all([
    opened.model.logprobs({ sequences: Array.from({ length: 5 }, () => ({ ids })), temperature: 1 }),
    sampleAll(opened.model, { promptIds, params: { maxTokens: 30 } }),
  ]);
  expect(beside).toEqual(alone);
  for (const { logprobs } of scores) expect(logprobs).toEqual(scores[0]!.logprobs);
});
