/** `sample` at one server that is well: the tokens are the server's, and everything the interface promises of them holds. */
import { expect, test } from "vitest";
import type { SampleEvent } from "../../../src/engine/engine.ts";
import { connect, eventually, fake, farthest, PROMPT, sampleAll, wanted } from "./fixture.ts";
import { bestOf, drawIds, rowOf, stateOf, TOY, type Toy, textOf } from "./toy-model.ts";

const drawn = (seed: number, count: number, more: object = {}) => drawIds(TOY, PROMPT, { seed, ...more }, count);

/** Log-probs of what was sampled, at a temperature. */
function truth(toy: Toy, ids: readonly number[], temperature: number): number[] {
  return ids.map((id, i) => rowOf(toy, stateOf([...PROMPT, ...ids.slice(0, i)]), temperature)[id]!);
}

test("choice i of a group draws from seed + i; the group is one request", async () => {
  const server = await fake();
  const { model, of } = await connect([server]);
  const events: SampleEvent[] = [];
  const sampled = await sampleAll(model, { n: 3, seed: 7 }, (event) => events.push(event));
  sampled.forEach(({ ids, logprobs, reason, bounds }, i) => {
    expect(ids).toEqual(drawn(7 + i, 12));
    expect(farthest(logprobs, truth(TOY, ids, 1))).toBeLessThan(1e-6);
    expect(bounds.every((bound) => bound === undefined)).toBe(true);
    expect(reason).toBe("length");
  });
  expect(new Set(sampled.map(({ ids }) => ids.join())).size).toBe(3);
  expect(server.completions()).toHaveLength(1);
  expect(events[0]).toEqual({ type: "prompt", cachedTokens: 0 });
  expect(of("request")).toEqual([{ model: "toy", where: server.where, type: "request", kind: "sample" }]);
  expect(model.load()).toMatchObject({ active: 0, waiting: 0 });
});

test("filters and temperature are the server's to apply, and none is left to its defaults", async () => {
  const server = await fake();
  const { model } = await connect([server]);
  const params = { temperature: 0.6, topP: 0.8, topK: 9 };
  const [{ ids }] = (await sampleAll(model, { params })) as [Awaited<ReturnType<typeof sampleAll>>[number]];
  expect(ids).toEqual(drawn(1, 12, params));
  expect(server.completions()[0]!.body).toMatchObject({
    model: "toy",
    temperature: 0.6,
    top_p: 0.8,
    top_k: 9,
    min_p: 0,
    repetition_penalty: 1,
    presence_penalty: 0,
    frequency_penalty: 0,
    ignore_eos: true,
    max_tokens: 12,
    stream: true,
  });
});

test("greedy sampling, also several times over, which vLLM refuses as one request", async () => {
  const server = await fake();
  const { model } = await connect([server]);
  const sampled = await sampleAll(model, { n: 3, params: { temperature: 0 } });
  const expected = drawn(0, 12, { temperature: 0 });
  for (const { ids, logprobs, reason } of sampled) {
    expect(ids).toEqual(expected);
    expect(farthest(logprobs, truth(TOY, ids, 1))).toBeLessThan(1e-6);
    expect(reason).toBe("length");
  }
});

test("a stop id ends its sequence and is its last token; the others go on", async () => {
  const server = await fake();
  const { model } = await connect([server]);
  const stopId = drawn(1, 12)[4]!;
  const [first, second] = await sampleAll(model, { n: 2, stopIds: [stopId] });
  expect(first!.ids).toEqual(drawn(1, 5));
  expect(first!.reason).toBe("stop");
  const other = drawn(2, 12);
  expect(other).not.toContain(stopId);
  expect(second!.ids).toEqual(other);
  expect(server.seen.tokens).toBe(17);
});

test("the server's own end counts only where the caller has it among its stop ids", async () => {
  const eosId = drawn(1, 12)[3]!;
  const server = await fake({ eosId });
  const { model } = await connect([server]);
  const [on] = await sampleAll(model);
  expect(on!.ids).toEqual(drawn(1, 12));
  const [off] = await sampleAll(model, { stopIds: [eosId] });
  expect(off).toMatchObject({ ids: drawn(1, 4), reason: "stop" });
});

test("a server that knows no stop ids, and none of whose words end anything, is ended by us", async () => {
  const server = await fake({ lacks: ["stop_token_ids", "stop"], tokenMs: 3 });
  const { model, of } = await connect([server]);
  const stopId = drawn(1, 12)[4]!;
  const params = { maxTokens: 60 };
  const [first, second] = await sampleAll(model, { n: 2, stopIds: [stopId], params });
  expect(first).toMatchObject({ ids: drawn(1, 5), reason: "stop" });
  const other = drawn(2, 60);
  const at = other.indexOf(stopId);
  expect(second!.ids).toEqual(at < 0 ? other : other.slice(0, at + 1));
  expect(of("failure")).toEqual([]);
  const before = server.seen.tokens;
  const alone = await sampleAll(model, { stopIds: [stopId], params });
  expect(alone[0]).toMatchObject({ ids: drawn(1, 5), reason: "stop" });
  await eventually(() => server.seen.openStreams === 0);
  expect(server.seen.tokens - before).toBeLessThan(30);
  expect(of("failure")).toEqual([]);
});

test("shouldStop decides; a server that is told the text stops by itself at the same token", async () => {
  const server = await fake({ tokenMs: 2 });
  const { model } = await connect([server]);
  const stopId = drawn(1, 40)[6]!;
  const shouldStop = (_: number, ids: readonly number[]): boolean => ids.at(-1) === stopId;
  const params = { maxTokens: 40 };
  const [told] = await sampleAll(model, { shouldStop, stopTexts: [textOf(stopId)], params });
  expect(told).toMatchObject({ ids: drawn(1, 7), reason: "stop" });
  expect(server.completions()[0]!.body).toMatchObject({ stop: [textOf(stopId)], include_stop_str_in_output: true });
  expect(server.seen.tokens).toBe(7);
  expect(server.seen.disconnects).toBe(0);
  const [untold] = await sampleAll(model, { shouldStop, params });
  expect(untold).toMatchObject({ ids: drawn(1, 7), reason: "stop" });
  await eventually(() => server.seen.disconnects === 1 && server.seen.openStreams === 0);
  expect(server.seen.tokens).toBeLessThan(7 + 40);
});

test("no more than four texts are sent: more is refused by many", async () => {
  const server = await fake();
  const { model } = await connect([server]);
  await sampleAll(model, { stopTexts: ["a", "b", "c", "d", "e"] });
  expect(server.completions()[0]!.body.stop).toHaveLength(4);
});

test("the context ends a sequence that may be longer, however many tokens were asked for", async () => {
  const server = await fake({ maxModelLen: 32 });
  const { model } = await connect([server]);
  for (const maxTokens of [30, 100]) {
    const [sampled] = await sampleAll(model, { params: { maxTokens } });
    expect(sampled).toMatchObject({ ids: drawn(1, 24), reason: "length" });
  }
});

test("a prompt that leaves no room, and ids that the model does not have, are refused before anything is sent", async () => {
  const server = await fake({ maxModelLen: 32 });
  const { model } = await connect([server]);
  const promptIds = new Int32Array(32).fill(5);
  await expect(sampleAll(model, { promptIds })).rejects.toMatchObject({ code: "context_length_exceeded" });
  await expect(sampleAll(model, { promptIds: Int32Array.of(300) })).rejects.toMatchObject({
    code: "invalid_token_ids",
  });
  expect(server.seen.requests).toEqual([]);
});

test("log-probs at another temperature are estimates whose bound covers the truth", async () => {
  for (const vocabSize of [300, 20_000]) {
    const toy = { ...TOY, vocabSize };
    const server = await fake({ toy });
    const { model } = await connect([server]);
    const [{ ids, logprobs, bounds }] = (await sampleAll(model, { params: { temperature: 0.7 } })) as [
      Awaited<ReturnType<typeof sampleAll>>[number],
    ];
    expect(ids).toEqual(drawIds(toy, PROMPT, { seed: 1, temperature: 0.7 }, 12));
    const exact = truth(toy, ids, 0.7);
    logprobs.forEach((logprob, i) => {
      expect(bounds[i]).toBeGreaterThan(0);
      expect(bounds[i]).toBeLessThan(0.5);
      expect(Math.abs(logprob - exact[i]!)).toBeLessThanOrEqual(bounds[i]! + 1e-5);
    });
    expect(server.completions()[0]!.body.logprobs).toBe(20);
  }
});

test("a tempered copy answers exactly at its temperature", async () => {
  const toy = { ...TOY, divisor: 0.7 };
  const server = await fake({ toy });
  const { model } = await connect([server], { tempered: 0.7 });
  const [{ ids, logprobs, bounds }] = (await sampleAll(model, { params: { temperature: 0.7 } })) as [
    Awaited<ReturnType<typeof sampleAll>>[number],
  ];
  expect(server.completions()[0]!.body.temperature).toBe(1);
  expect(ids).toEqual(drawn(1, 12, { temperature: 0.7 }));
  expect(farthest(logprobs, truth(TOY, ids, 0.7))).toBeLessThan(1e-6);
  expect(bounds.every((bound) => bound === undefined)).toBe(true);
  // At 1 it is this copy that can only estimate.
  const [plain] = await sampleAll(model, { params: { temperature: 1 } });
  expect(plain!.ids).toEqual(drawn(1, 12));
  const exact = truth(TOY, plain!.ids, 1);
  plain!.logprobs.forEach((logprob, i) => {
    expect(Math.abs(logprob - exact[i]!)).toBeLessThanOrEqual(plain!.bounds[i]! + 1e-5);
  });
});

test("a server that reports scaled log-probs is found out, and believed at the sampling temperature only", async () => {
  const server = await fake({ logprobsMode: "processed_logprobs" });
  const { model } = await connect([server]);
  const params = { temperature: 0.7 };
  const [scaled] = await sampleAll(model, { params });
  expect(farthest(scaled!.logprobs, truth(TOY, scaled!.ids, 0.7))).toBeLessThan(1e-6);
  expect(scaled!.bounds.every((bound) => bound === undefined)).toBe(true);
  const [greedy] = await sampleAll(model, { params: { temperature: 0 } });
  expect(farthest(greedy!.logprobs, truth(TOY, greedy!.ids, 1))).toBeLessThan(1e-6);
  const refusals = [
    { params, logprobsTemperature: 1 },
    { params: { ...params, topP: 0.9 } },
    { params: { ...params, topK: 5 } },
  ];
  for (const request of refusals) {
    await expect(sampleAll(model, request)).rejects.toMatchObject({ code: "unsupported_by_backend" });
    const [unread] = await sampleAll(model, { ...request, logprobs: false });
    expect(unread!.ids).toHaveLength(12);
  }
});

test("alternatives: the most likely ids with their log-probs, at 1 and estimated", async () => {
  const server = await fake();
  const { model } = await connect([server]);
  for (const temperature of [1, 0.7]) {
    const [{ ids, tops, bounds }] = (await sampleAll(model, { topLogprobs: 3, params: { temperature } })) as [
      Awaited<ReturnType<typeof sampleAll>>[number],
    ];
    expect(tops).toHaveLength(12);
    tops.forEach((top, i) => {
      const row = rowOf(TOY, stateOf([...PROMPT, ...ids.slice(0, i)]), temperature);
      const best = bestOf(row, 3);
      expect([...top.ids]).toEqual(best);
      const exact = best.map((id) => row[id]!);
      expect(farthest(top.logprobs, exact)).toBeLessThanOrEqual((bounds[i] ?? 0) + 1e-5);
    });
  }
});

test("log-probs that nobody reads are not asked for", async () => {
  const server = await fake();
  const { model } = await connect([server]);
  const [{ ids, logprobs }] = (await sampleAll(model, { logprobs: false, params: { temperature: 0.7 } })) as [
    Awaited<ReturnType<typeof sampleAll>>[number],
  ];
  expect(ids).toEqual(drawn(1, 12, { temperature: 0.7 }));
  expect(logprobs.every(Number.isNaN)).toBe(true);
  expect(server.completions()[0]!.body).not.toHaveProperty("logprobs");
});

test("the cached tokens come with the usage, before the end", async () => {
  const server = await fake();
  const { model } = await connect([server]);
  const promptIds = Int32Array.from({ length: 40 }, (_, i) => i + 3);
  const events: SampleEvent[] = [];
  await sampleAll(model, { promptIds });
  await sampleAll(model, { promptIds, n: 2 }, (event) => events.push(event));
  const usage = events.findIndex(({ type }) => type === "usage");
  expect(events[usage]).toEqual({ type: "usage", cachedTokens: 32 });
  expect(usage).toBeLessThan(events.findLastIndex(({ type }) => type === "finish"));
  expect(model.load()).toMatchObject({ computedTokens: 40 + 8, cachedTokens: 32 });
});

test("cancelling closes the request, and the server's stream with it", async () => {
  const server = await fake({ tokenMs: 5 });
  const { model } = await connect([server]);
  const cancelling = new AbortController();
  let tokens = 0;
  const started = performance.now();
  const sampled = await sampleAll(
    model,
    { n: 2, signal: cancelling.signal, params: { maxTokens: 200 } },
    ({ type }) => {
      if (type === "token" && ++tokens === 6) cancelling.abort();
    },
  );
  expect(sampled.map(({ reason }) => reason)).toEqual(["cancelled", "cancelled"]);
  expect(performance.now() - started).toBeLessThan(1000);
  await eventually(() => server.seen.openStreams === 0 && server.seen.disconnects === 1);
  expect(server.seen.tokens).toBeLessThan(40);
  expect(model.load()).toMatchObject({ active: 0 });
  const before = server.seen.requests.length;
  const [never] = await sampleAll(model, { signal: AbortSignal.abort() });
  expect(never).toMatchObject({ ids: [], reason: "cancelled" });
  expect(server.seen.requests).toHaveLength(before);
});

test("leaving the loop early closes the request too", async () => {
  const server = await fake({ tokenMs: 5 });
  const { model } = await connect([server]);
  for await (const { type } of model.sample(wanted({ params: { maxTokens: 200 } }))) if (type === "token") break;
  await eventually(() => server.seen.openStreams === 0 && server.seen.disconnects === 1);
  expect(model.load()).toMatchObject({ active: 0 });
});

test("servers that answer one choice, refuse several, or name their ids in the log-probs serve as well", async () => {
  for (const lacks of [["n_ignored"], ["n"], ["token_ids"], ["token_ids", "n"]] as const) {
    const server = await fake({ lacks });
    const { model } = await connect([server]);
    const sampled = await sampleAll(model, { n: 3, seed: 4 });
    sampled.forEach(({ ids, logprobs, reason }, i) => {
      expect(ids).toEqual(drawn(4 + i, 12));
      expect(farthest(logprobs, truth(TOY, ids, 1))).toBeLessThan(1e-6);
      expect(reason).toBe("length");
    });
    // One choice at a time is no reason to ask for fewer alternatives.
    await sampleAll(model, { params: { temperature: 0.7 } });
    expect(server.completions().at(-1)!.body.logprobs).toBe(20);
    const [unread] = await sampleAll(model, { logprobs: false });
    expect(unread!.ids).toEqual(drawn(1, 12));
    expect(unread!.logprobs.every(Number.isNaN)).toBe(true);
  }
});

test("a server that does not say which ids it samples cannot be sampled from", async () => {
  const server = await fake({ lacks: ["token_ids", "named_tokens"] });
  const { model } = await connect([server]);
  expect(model.capabilities.sample).toBe(false);
  await expect(sampleAll(model)).rejects.toMatchObject({ code: "unsupported_by_backend" });
});

test("many sequences under one signal warn of nothing", async () => {
  const warnings: string[] = [];
  const warn = ({ message }: Error): void => void warnings.push(message);
  process.on("warning", warn);
  const server = await fake();
  const { model } = await connect([server]);
  const { signal } = new AbortController();
  await Promise.all(Array.from({ length: 30 }, (_, seed) => sampleAll(model, { seed, signal })));
  const sequences = Array.from({ length: 30 }, () => ({ ids: PROMPT }));
  await model.logprobs({ sequences, temperature: 1, signal });
  await new Promise((resolve) => setImmediate(resolve));
  process.off("warning", warn);
  expect(warnings).toEqual([]);
});
