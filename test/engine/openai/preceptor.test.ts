/** Preceptor as the server of another Preceptor: nothing that its own engine says is lost on the way. */
import { once } from "node:events";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { serve } from "@hono/node-server";
import { expect, onTestFinished, test } from "vitest";
import type { RemoteModel, SampleEvent, SampleRequest } from "../../../src/engine/engine.ts";
import { createOpenAiEngine } from "../../../src/engine/openai/engine.ts";
import { createFakeEngine, encodePlain, type FakeEngine, VOCAB_SIZE } from "../../api/fakes.ts";
import { openaiFixture } from "../../api/openai-fixture.ts";
import { connect, eventually, fake, farthest, PROBE, type Sampled, sampleAll, score } from "./fixture.ts";
import { rowOf, stateOf, TOY } from "./toy-model.ts";

const TEXT = Int32Array.of(65, 66, 67, 68, 69, 70, 90, 91);
const IM_END = 258;

async function connected(
  options: Parameters<typeof openaiFixture>[0] = { cachedTokens: 3 },
): Promise<{ model: RemoteModel; behind: FakeEngine; server: Server }> {
  const { app, engine: behind } = openaiFixture(options);
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
  return { model, behind, server };
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

test("a sample that ends at a text of ours leaves the connection to the next one", async () => {
  const writer = createFakeEngine({ script: () => encodePlain("so it is STOP and so on") });
  /** The word that it has ended comes in a packet of its own. */
  async function* sample(request: SampleRequest): AsyncGenerator<SampleEvent> {
    for await (const event of writer.sample(request)) {
      if (event.type === "finish") await new Promise((resolve) => setTimeout(resolve, 10));
      yield event;
    }
  }
  const { model, server } = await connected({ engine: { ...writer, sample } });
  let connections = 0;
  server.on("connection", () => connections++);
  const [STOP] = encodePlain("STOP");
  const shouldStop = (_: number, ids: readonly number[]): boolean => ids.at(-1) === STOP;
  for (let i = 0; i < 5; i++) {
    const [sampled] = await sampleAll(model, { shouldStop, stopTexts: ["STOP"], params: { maxTokens: 40 } });
    expect(sampled).toMatchObject({ ids: encodePlain("so it is STOP"), reason: "stop" });
    await eventually(() => model.replicas()[0]!.active === 0);
  }
  // Unless probing has left one open, the first needs one.
  expect(connections).toBeLessThan(2);
});

test("estimates of a server behind it stay estimates, whose bound holds at their temperature and at others", async () => {
  const toy = { ...TOY, vocabSize: VOCAB_SIZE };
  const tempered = await connect([await fake({ toy: { ...toy, divisor: 0.7 } })], { tempered: 0.7 });
  const { model } = await connected({ engine: tempered.model });
  for (const temperature of [1, 0.7, 1.5]) {
    const request = { promptIds: TEXT, seed: 3, logprobsTemperature: temperature };
    const [{ ids, logprobs, bounds }] = (await sampleAll(model, request)) as [Sampled];
    expect(ids.length).toBeGreaterThan(0);
    ids.forEach((id, i) => {
      const truth = rowOf({ ...toy, divisor: temperature }, stateOf([...TEXT, ...ids.slice(0, i)]))[id]!;
      expect(bounds[i]).toBeGreaterThan(0);
      expect(Math.abs(logprobs[i]! - truth)).toBeLessThanOrEqual(bounds[i]! + 1e-5);
    });
  }
});
