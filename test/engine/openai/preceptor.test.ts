/** Preceptor as the server of another Preceptor: nothing that its own engine says is lost on the way. */
import { once } from "node:events";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { serve } from "@hono/node-server";
import { expect, onTestFinished, test } from "vitest";
import type { RemoteModel } from "../../../src/engine/engine.ts";
import { createOpenAiEngine } from "../../../src/engine/openai/engine.ts";
import type { FakeEngine } from "../../api/fakes.ts";
import { openaiFixture } from "../../api/openai-fixture.ts";
import { farthest, PROBE, type Sampled, sampleAll, score } from "./fixture.ts";

const TEXT = Int32Array.of(65, 66, 67, 68, 69, 70, 90, 91);
const IM_END = 258;

async function connected(): Promise<{ model: RemoteModel; behind: FakeEngine }> {
  const { app, engine: behind } = openaiFixture({ cachedTokens: 3 });
  const server = serve({ fetch: app.fetch, port: 0, hostname: "127.0.0.1" }) as Server;
  await once(server, "listening");
  const engine = createOpenAiEngine({
    allowedHosts: ["127.0.0.1"],
    observe: () => undefined,
    now: () => performance.now(),
    hashAdapter: async () => "",
  });
  const { port } = server.address() as AddressInfo;
  const model = await engine.connect({
    baseUrls: [`http://127.0.0.1:${port}/v1`],
    name: "fake",
    key: undefined,
    tempered: 1,
    vocabSize: behind.vocabSize,
    eosIds: [IM_END],
    contextLength: behind.contextLength,
    probeIds: PROBE,
  });
  onTestFinished(async () => {
    await model.close();
    server.closeAllConnections();
    server.close();
  });
  return { model, behind };
}

test("it is found able to do everything but train and load adapters", async () => {
  const { model, behind } = await connected();
  expect(model.capabilities).toEqual({
    sample: true,
    logprobs: true,
    exact_temperatures: null,
    topk: true,
    at_ids: true,
    distributions: true,
    adapters: false,
    train: false,
    batch_invariant: false,
  });
  expect(model.vocabSize).toBe(behind.vocabSize);
});

test("samples, their log-probs and their end", async () => {
  const { model, behind } = await connected();
  const request = { promptIds: TEXT, n: 2, seed: 3, stopIds: [IM_END], topLogprobs: 2, logprobsTemperature: 1 };
  const theirs = (await sampleAll(model, request)) as [Sampled, Sampled];
  const ours = (await sampleAll(behind, request)) as [Sampled, Sampled];
  theirs.forEach(({ ids, logprobs, tops, reason }, i) => {
    expect(ids).toEqual(ours[i]!.ids);
    expect(reason).toBe(ours[i]!.reason);
    expect(farthest(logprobs, ours[i]!.logprobs)).toBeLessThan(1e-6);
    expect(tops.map((top) => [...top.ids])).toEqual(ours[i]!.tops.map((top) => [...top.ids]));
  });
  expect(model.load().cachedTokens).toBe(3);
});

test("scores at any temperature, exactly", async () => {
  const { model, behind } = await connected();
  const at = Int32Array.from({ length: 5 }, (_, i) => i * 50);
  for (const temperature of [1, 0.7]) {
    const wanted = { temperature, from: 3, topK: 3, rank: true, exact: true };
    const [theirs, ours] = [await score(model, TEXT, wanted), await score(behind, TEXT, wanted)];
    expect(farthest(theirs.logprobs, ours.logprobs)).toBeLessThan(1e-5);
    expect(theirs.rank).toEqual(ours.rank);
    expect(theirs.topIds).toEqual(ours.topIds);
    expect(theirs.errorBound).toBeUndefined();
    const chosen = { temperature, from: 3, at, atWidth: 1, entropy: true };
    const [far, near] = [await score(model, TEXT, chosen), await score(behind, TEXT, chosen)];
    expect(farthest(far.at!, near.at!)).toBeLessThan(1e-5);
    expect(farthest(far.entropy!, near.entropy!)).toBeLessThan(1e-4);
  }
});
