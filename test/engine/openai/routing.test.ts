/** Which replica does what. */
import { expect, test } from "vitest";
import { connect, eventually, fake, PROMPT, sampleAll, score } from "./fixture.ts";

const prompt = (i: number): Int32Array => Int32Array.of(9, i % 300, 7);

test("a fast replica gets more of the work than a slow one, and the slow one its part", async () => {
  const [fast, slow] = [await fake({ tokenMs: 1 }), await fake({ tokenMs: 20 })];
  const { model } = await connect([slow, fast]);
  let next = 0;
  const client = async (): Promise<void> => {
    while (next < 60) await sampleAll(model, { promptIds: prompt(next++) });
  };
  await Promise.all(Array.from({ length: 6 }, client));
  expect(fast.seen.sequences + slow.seen.sequences).toBe(60);
  expect(fast.seen.sequences).toBeGreaterThan(2 * slow.seen.sequences);
  expect(slow.seen.sequences).toBeGreaterThan(0);
  // Both are known by now: what comes alone goes to the fast one.
  const before = slow.seen.sequences;
  for (let i = 100; i < 110; i++) await sampleAll(model, { promptIds: prompt(i) });
  expect(slow.seen.sequences).toBe(before);
});

test("equal replicas share the work", async () => {
  const servers = [await fake({ tokenMs: 2 }), await fake({ tokenMs: 2 }), await fake({ tokenMs: 2 })];
  const { model } = await connect(servers);
  await Promise.all(Array.from({ length: 30 }, (_, i) => sampleAll(model, { promptIds: prompt(i) })));
  for (const { seen } of servers) expect(seen.sequences).toBe(10);
});

test("groups count as many sequences as they have", async () => {
  const [a, b] = [await fake({ tokenMs: 10 }), await fake({ tokenMs: 10 })];
  const { model } = await connect([a, b]);
  const group = sampleAll(model, { promptIds: prompt(0), n: 8 });
  await eventually(() => a.seen.sequences === 8);
  await Promise.all(Array.from({ length: 8 }, (_, i) => sampleAll(model, { promptIds: prompt(1 + i) })));
  await group;
  expect(b.seen.sequences).toBe(8);
});

test("what begins alike goes where it was computed, unless that replica is far busier", async () => {
  const [a, b] = [await fake({ tokenMs: 10 }), await fake({ tokenMs: 10 })];
  const { model } = await connect([a, b]);
  const long = Int32Array.from({ length: 100 }, (_, i) => i);
  // The first replica is busy with another prompt when the long one comes, and idle when it comes again.
  const other = sampleAll(model, { n: 2 });
  await eventually(() => a.seen.openStreams === 1);
  await sampleAll(model, { promptIds: long });
  await other;
  for (let i = 0; i < 3; i++) {
    // The caller has everything a moment before the server has closed its answer.
    await new Promise((resolve) => setTimeout(resolve, 50));
    await sampleAll(model, { promptIds: long });
  }
  await score(model, long);
  const ofLong = ({ seen }: typeof a): number => seen.requests.filter(({ body }) => body.prompt?.length === 100).length;
  expect([ofLong(a), ofLong(b)]).toEqual([0, 5]);
  await sampleAll(model);
  expect(a.seen.sequences).toBe(3);
  const group = sampleAll(model, { promptIds: long, n: 8 });
  await eventually(() => b.seen.openStreams === 1);
  await sampleAll(model, { promptIds: long });
  expect(ofLong(a)).toBe(1);
  await group;
});

test("the load is what is under way and what waits", async () => {
  const server = await fake({ tokenMs: 30 });
  const { model } = await connect([server]);
  expect(model.load()).toEqual({
    active: 0,
    waiting: 0,
    scoring: 0,
    computedTokens: 0,
    cachedTokens: 0,
    prefixBytes: 0,
  });
  const sampling = sampleAll(model, { n: 3 });
  const scoring = model.logprobs({ sequences: [{ ids: PROMPT }, { ids: PROMPT }], temperature: 1 });
  await eventually(() => server.completions().length === 3);
  expect(model.load()).toMatchObject({ active: 3, waiting: 0, scoring: 2 });
  await Promise.all([sampling, scoring]);
  expect(model.load()).toMatchObject({ active: 0, waiting: 0, scoring: 0, computedTokens: 24 });
});
