/** Servers that fail: what was begun goes on elsewhere, and nothing is lost, doubled or believed that cannot be. */
import { expect, test, vi } from "vitest";
import type { Fault } from "./fake-faults.ts";
import type { FakeVllm } from "./fake-vllm.ts";
import { connect, eventually, fake, farthest, PROMPT, type Sampled, sampleAll, score, wanted } from "./fixture.ts";
import { drawIds, ownLogprobs, rowOf, stateOf, TOY } from "./toy-model.ts";

vi.mock("../../../src/engine/openai/limits.ts", async (original) => {
  const { QUICK } = await import("./quick-limits.ts");
  return { ...(await original<object>()), ...QUICK };
});

const drawn = (seed: number, count: number) => drawIds(TOY, PROMPT, { seed }, count);

/** Log-probs at 1 of what was sampled after the prompt, whoever sampled it. */
function expectTrueLogprobs({ ids, logprobs }: Sampled): void {
  const truth = ids.map((id, i) => rowOf(TOY, stateOf([...PROMPT, ...ids.slice(0, i)]))[id]!);
  expect(farthest(logprobs, truth)).toBeLessThan(1e-6);
}

/**
 * The sequence is what the servers drew, put together: the first stretch from its own seed, every further one from the prompt,
 * the seed and the length that it was asked for with, beginning where the one before was cut.
 */
function expectJoined(sampled: Sampled, index: number, total: number, servers: readonly FakeVllm[]): void {
  const { ids } = sampled;
  expect(sampled.reason).toBe("length");
  expect(ids).toHaveLength(total);
  const continuations = servers
    .flatMap((server) => server.completions().map(({ body }) => body))
    .filter(({ prompt }) => prompt!.length > PROMPT.length)
    .filter(({ prompt }) => prompt!.slice(PROMPT.length).every((id, i) => id === ids[i]))
    .sort((a, b) => a.prompt!.length - b.prompt!.length);
  expect(continuations.length).toBeGreaterThan(0);
  const cuts = continuations.map(({ prompt }) => prompt!.length - PROMPT.length);
  expect(ids.slice(0, cuts[0])).toEqual(drawn(1 + index, cuts[0]!));
  continuations.forEach(({ prompt, seed, max_tokens: max, n }, i) => {
    expect(n).toBe(1);
    expect(max).toBe(total - cuts[i]!);
    const length = (cuts[i + 1] ?? total) - cuts[i]!;
    expect(ids.slice(cuts[i]!, cuts[i]! + length)).toEqual(drawIds(TOY, prompt!, { seed: seed! }, length));
  });
  expectTrueLogprobs(sampled);
}

test("a replica that is killed in mid-stream: its sequences go on at another, no token lost or doubled", async () => {
  const [a, b] = [await fake({ tokenMs: 3 }), await fake({ tokenMs: 1 })];
  const { model, of } = await connect([a, b]);
  let tokens = 0;
  let killed: Promise<void> | undefined;
  const sampled = await sampleAll(model, { n: 4, params: { maxTokens: 30 } }, ({ type }) => {
    if (type === "token" && ++tokens === 40) killed = a.kill();
  });
  await killed;
  sampled.forEach((each, index) => {
    expectJoined(each, index, 30, [b]);
  });
  expect([a.seen.sequences, b.seen.sequences]).toEqual([4, 4]);
  expect(of("resumed")).toEqual([{ model: "toy", where: b.where, type: "resumed", sequences: 4 }]);
  expect(of("failure")).toMatchObject([{ where: a.where, retried: true }]);
  expect(b.seen.openStreams).toBe(0);
});

test("sequences that have ended are not sampled again", async () => {
  const [a, b] = [await fake({ tokenMs: 4 }), await fake()];
  const { model, of } = await connect([a, b]);
  const stopId = drawn(1, 12)[4]!;
  let killed: Promise<void> | undefined;
  const sampled = await sampleAll(model, { n: 3, stopIds: [stopId], params: { maxTokens: 60 } }, ({ type }) => {
    if (type === "finish") killed ??= a.kill();
  });
  await killed;
  expect(sampled[0]).toMatchObject({ ids: drawn(1, 5), reason: "stop" });
  expect(of("resumed")).toMatchObject([{ sequences: 2 }]);
  expect(b.seen.sequences).toBe(2);
  for (const { ids, reason } of sampled) expect(reason).toBe(ids.at(-1) === stopId ? "stop" : "length");
});

test("a replica that dies before the first token leaves no trace in the answer", async () => {
  for (const kind of ["cut", "end", "error-event"] as const) {
    const [a, b] = [await fake(), await fake()];
    const { model, of } = await connect([a, b]);
    a.misbehave({ kind, after: 0, message: "out of memory" });
    const sampled = await sampleAll(model, { n: 2 });
    sampled.forEach((each, i) => {
      expect(each.ids).toEqual(drawn(1 + i, 12));
      expectTrueLogprobs(each);
    });
    expect(of("resumed")).toEqual([]);
    expect(b.completions()).toHaveLength(1);
    if (kind === "error-event") expect(of("failure")[0]!.message).toBe('broke off with: "out of memory"');
  }
});

test("a server that breaks off again and again is used as long as it makes headway", async () => {
  for (const kind of ["cut", "end", "error-event"] as const) {
    const server = await fake();
    const { model, of } = await connect([server]);
    server.misbehave({ kind, after: 5, message: "worker lost" });
    const [sampled] = await sampleAll(model, { params: { maxTokens: 32 } });
    expectJoined(sampled!, 0, 32, [server]);
    expect(of("failure").length).toBeGreaterThanOrEqual(6);
  }
});

test("what was lost may have been no more than the word that it is over", async () => {
  const server = await fake();
  const { model } = await connect([server]);
  // All tokens are sent, and the connection breaks before the end is: every second time.
  const shouldStop = (_: number, ids: readonly number[]): boolean => ids.length > 99;
  server.misbehave({ kind: "cut", after: 12 }, { times: 1 });
  const [sampled] = await sampleAll(model, { shouldStop });
  expect(sampled).toMatchObject({ ids: drawn(1, 12), reason: "length" });
});

const GARBAGE: readonly Fault[] = [
  { kind: "html" },
  { kind: "not-json" },
  { kind: "alien-ids" },
  { kind: "nan" },
  { kind: "null-logprobs" },
  { kind: "positive-logprobs" },
  { kind: "no-logprobs" },
];

test.each([...GARBAGE, { kind: "status", status: 500 }] satisfies Fault[])(
  "sampling, %o: another replica answers",
  async (fault) => {
    const [a, b] = [await fake(), await fake()];
    const { model, of } = await connect([a, b]);
    a.misbehave(fault);
    for (const temperature of [1, 0.7]) {
      const [first] = await sampleAll(model, { params: { temperature } });
      expect(first).toMatchObject({ ids: drawIds(TOY, PROMPT, { seed: 1, temperature }, 12), reason: "length" });
      if (temperature === 1) expectTrueLogprobs(first!);
      // The prompt now belongs to the replica that answered it; another one begins at the first again.
      const [other] = await sampleAll(model, {
        promptIds: Int32Array.of(1, temperature * 10),
        params: { temperature },
      });
      expect(other!.ids).toEqual(drawIds(TOY, [1, temperature * 10], { seed: 1, temperature }, 12));
    }
    const kind = fault.kind === "status" ? "failed" : "garbage";
    expect(of("failure").length).toBeGreaterThan(0);
    for (const failure of of("failure"))
      expect(failure).toMatchObject({ where: a.where, failure: kind, retried: true });
    expect(of("resumed")).toEqual([]);
  },
);

test.each([...GARBAGE, { kind: "short-scores" }, { kind: "status", status: 500 }] satisfies Fault[])(
  "scoring, %o: another replica answers",
  async (fault) => {
    const [a, b] = [await fake(), await fake()];
    const { model, of } = await connect([a, b]);
    a.misbehave(fault);
    const { logprobs } = await score(model, PROMPT, { rank: true });
    expect(farthest(logprobs, ownLogprobs(TOY, PROMPT))).toBeLessThan(1e-6);
    const kind = fault.kind === "status" ? "failed" : "garbage";
    expect(of("failure")).toMatchObject([{ where: a.where, failure: kind, retried: true }]);
  },
);

test("a refusal is passed on in the server's words, without the key, and tried nowhere else", async () => {
  const [a, b] = [await fake({ apiKey: "sk-secret" }), await fake({ apiKey: "sk-secret" })];
  const { model, of } = await connect([a, b], { key: "sk-secret" });
  for (const server of [a, b])
    server.misbehave({ kind: "status", status: 400, message: "bad\u0000 words from sk-secret" });
  for (const asking of [() => sampleAll(model), () => score(model, PROMPT)]) {
    const refusal = await asking().catch((error: unknown) => error);
    expect(refusal).toMatchObject({ code: "backend_refused" });
    expect((refusal as Error).message).toMatch(/^127\.0\.0\.1:\d+: answered 400: "bad words from …"$/);
  }
  expect(a.completions().length + b.completions().length).toBe(2);
  expect(of("failure").every(({ retried, failure }) => !retried && failure === "refused")).toBe(true);
  expect(of("opened")).toEqual([]);
});

test("a redirect in mid-operation is refused too", async () => {
  const elsewhere = await fake();
  const server = await fake();
  const { model } = await connect([server], { key: "sk-secret" });
  server.misbehave({ kind: "redirect", to: `${elsewhere.url}/completions` });
  for (const asking of [sampleAll(model), score(model, PROMPT)]) {
    await expect(asking).rejects.toMatchObject({ code: "backend_refused" });
  }
  expect(elsewhere.seen.requests).toEqual([]);
});

test("Retry-After is obeyed; meanwhile the other replicas do the work", async () => {
  const [a, b] = [await fake(), await fake()];
  const { model, of } = await connect([a, b]);
  a.misbehave({ kind: "status", status: 429, retryAfter: "0.6" }, { times: 1 });
  const prompt = (i: number) => Int32Array.of(3, i);
  const [first] = await sampleAll(model, { promptIds: prompt(0) });
  expect(first!.ids).toEqual(drawIds(TOY, prompt(0), { seed: 1 }, 12));
  const [{ at: paused }] = a.completions() as [ReturnType<FakeVllm["completions"]>[number]];
  for (let i = 1; performance.now() < paused + 400; i++) await sampleAll(model, { promptIds: prompt(i) });
  expect(a.completions()).toHaveLength(1);
  expect(b.completions().length).toBeGreaterThan(1);
  await new Promise((resolve) => setTimeout(resolve, paused + 610 - performance.now()));
  for (let i = 100; i < 110; i++) {
    await Promise.all([0, 100].map((more) => sampleAll(model, { promptIds: prompt(i + more) })));
  }
  expect(a.completions().length).toBeGreaterThan(1);
  expect(a.completions()[1]!.at).toBeGreaterThanOrEqual(paused + 595);
  expect(of("failure")).toMatchObject([{ failure: "busy", retried: true }]);
  expect(of("opened")).toEqual([]);
});

test("a busy server that is alone is waited for, and says so to those who wait", async () => {
  for (const [retryAfter, least] of [
    ["0.2", 200],
    [undefined, 60],
  ] as const) {
    const server = await fake();
    const { model } = await connect([server]);
    server.misbehave({ kind: "status", status: 503, ...(retryAfter ? { retryAfter } : {}) }, { times: 1 });
    const types: string[] = [];
    const [sampled] = await sampleAll(model, {}, (event) =>
      types.push(event.type === "queued" ? event.reason : event.type),
    );
    expect(sampled!.ids).toEqual(drawn(1, 12));
    expect(types.slice(0, 2)).toEqual(["backend", "prompt"]);
    const [first, second] = server.completions();
    expect(second!.at - first!.at).toBeGreaterThanOrEqual(least - 5);
    expect(second!.at - first!.at).toBeLessThan(least + 3000);
  }
});

test("a server that is alone and comes back in time is used again by those who waited", async () => {
  const server = await fake();
  const { model, of } = await connect([server]);
  await server.kill();
  const sampling = sampleAll(model, { n: 2 });
  await eventually(() => of("opened").length > 0);
  await server.revive();
  const sampled = await sampling;
  expect(sampled.map(({ ids }) => ids)).toEqual([drawn(1, 12), drawn(2, 12)]);
  expect(of("closed")).toHaveLength(1);
});

test("cancelling ends also what waits for its next attempt", async () => {
  const server = await fake();
  const { model } = await connect([server]);
  await server.kill();
  const cancelling = new AbortController();
  const sampling = sampleAll(model, { signal: cancelling.signal });
  const scoring = score(model, PROMPT, { signal: cancelling.signal });
  await new Promise((resolve) => setTimeout(resolve, 30));
  const started = performance.now();
  cancelling.abort();
  expect((await sampling)[0]!.reason).toBe("cancelled");
  await expect(scoring).rejects.toMatchObject({ code: "cancelled" });
  expect(performance.now() - started).toBeLessThan(1000);
  expect(model.load()).toMatchObject({ active: 0, scoring: 0, waiting: 0 });
});

test("close ends everything that is under way or waits, and nothing is asked after it", async () => {
  const server = await fake({ tokenMs: 10 });
  const { model } = await connect([server]);
  const streaming = sampleAll(model, { n: 2, params: { maxTokens: 200 } });
  const iterating = model.sample(wanted({ params: { maxTokens: 200 } }))[Symbol.asyncIterator]();
  await iterating.next();
  server.settings.tokenMs = 100;
  const scoring = score(model, PROMPT);
  const iterated = (async () => {
    for (;;) if ((await iterating.next()).done) return;
  })();
  await eventually(() => server.completions().length === 3);
  const ended = Promise.allSettled([streaming, iterated, scoring]);
  await model.close();
  const reason = { code: "engine_failed", message: expect.stringContaining("unloaded") };
  for (const each of await ended) expect(each).toMatchObject({ status: "rejected", reason });
  await eventually(() => server.seen.openStreams === 0);
  await expect(sampleAll(model)).rejects.toMatchObject(reason);
  await expect(score(model, PROMPT)).rejects.toMatchObject(reason);
  const before = server.seen.requests.length;
  await new Promise((resolve) => setTimeout(resolve, 150));
  expect(server.seen.requests).toHaveLength(before);
});

test("close ends those who wait for a server", async () => {
  const server = await fake();
  const { model } = await connect([server]);
  await server.kill();
  const sampling = sampleAll(model);
  await new Promise((resolve) => setTimeout(resolve, 60));
  await model.close();
  await expect(sampling).rejects.toMatchObject({ code: "engine_failed" });
});

test("a replica that no longer serves the model, or not to us, is passed over", async () => {
  const [lost, good] = [await fake(), await fake()];
  const { model } = await connect([lost, good]);
  lost.misbehave({ kind: "status", status: 404, message: "The model `toy` does not exist." });
  for (let seed = 0; seed < 12; seed++) {
    const [sampled] = await sampleAll(model, wanted({ seed }));
    expect(sampled?.ids.length).toBeGreaterThan(0);
  }
  expect(good.completions().length).toBeGreaterThanOrEqual(12);
});
