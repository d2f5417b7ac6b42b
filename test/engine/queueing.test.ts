import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { SampleEvent } from "../../src/engine/engine.ts";
import {
  MAX_CLIENT_SLOTS,
  MAX_SCORING_PER_CLIENT,
  MAX_SLOTS,
  MAX_WAITING_PER_CLIENT,
} from "../../src/engine/onnx/limits.ts";
import { eventually, goldenDirectory, type Opened, openModel, sampleAll } from "./fixture.ts";

let opened: Opened;
beforeAll(async () => {
  opened = await openModel(goldenDirectory("llama"), 512);
});
afterAll(() => opened?.model.close());
afterEach(() => eventually(() => opened.model.load().active + opened.model.load().waiting === 0));

const prompt = (which: number): Int32Array => Int32Array.of(which % 500, 6, 7);
const endless = { maxTokens: 450 };

/** Asks for `n` long samples; resolves with everything that happened once `leave` was called. */
function stream(client: string, n: number, rest: { priority?: "interactive" | "job"; which?: number } = {}) {
  const left = new AbortController();
  const events: SampleEvent[] = [];
  const { priority, which = 1 } = rest;
  const done = sampleAll(
    opened.model,
    { promptIds: prompt(which), n, params: endless, client, signal: left.signal, ...(priority ? { priority } : {}) },
    (event) => void events.push(event),
  );
  const first = (): boolean => events.some(({ type }) => type === "token");
  return { events, first, done, leave: () => left.abort() };
}

test("one client has half of the slots; another begins at once beside it", async () => {
  const greedy = stream("greedy", MAX_CLIENT_SLOTS + 20);
  await eventually(() => opened.model.load().active === MAX_CLIENT_SLOTS);
  const other = stream("other", 1, { which: 2 });
  await eventually(other.first);
  expect(opened.model.load()).toMatchObject({ active: MAX_CLIENT_SLOTS + 1, waiting: 20 });
  greedy.leave();
  other.leave();
  await Promise.all([greedy.done, other.done]);
});

test("who has to wait is told its place and why, and moves up", async () => {
  const running = ["a", "b"].map((client, i) => stream(client, MAX_SLOTS / 2, { which: i }));
  await eventually(() => opened.model.load().active === MAX_SLOTS);
  const [first, second] = ["c", "d"].map((client, i) => stream(client, 1, { which: 9 + i }));
  await eventually(() => second!.events.length > 0);
  expect(first!.events[0]).toEqual({ type: "queued", position: 1, reason: "slots" });
  expect(second!.events[0]).toEqual({ type: "queued", position: 2, reason: "slots" });
  running[0]!.leave();
  await eventually(() => first!.first() && second!.first());
  expect(first!.events.filter(({ type }) => type === "prompt")).toEqual([{ type: "prompt", cachedTokens: 0 }]);
  for (const each of [running[1]!, first!, second!]) each.leave();
  await Promise.all([...running, first!, second!].map(({ done }) => done));
});

test("jobs have half of the slots, whoever asks; interactive requests pass those that wait", async () => {
  const jobs = ["a", "b", "c"].map((client, i) => stream(client, MAX_CLIENT_SLOTS / 2, { priority: "job", which: i }));
  await eventually(() => opened.model.load().active === MAX_CLIENT_SLOTS);
  const person = stream("person", 2, { which: 7 });
  await eventually(person.first);
  expect(opened.model.load().active).toBe(MAX_CLIENT_SLOTS + 2);
  expect(jobs[2]!.first()).toBe(false);
  for (const each of [...jobs, person]) each.leave();
  await Promise.all([...jobs, person].map(({ done }) => done));
});

test("a long answer or a long prompt beside short ones is decoded apart, and costs them neither room nor numbers", async () => {
  const ask = (length: number, maxTokens: number, client: string) => {
    const promptIds = Int32Array.from({ length }, (_, i) => (i * 7 + 3) % 480);
    return sampleAll(large.model, { promptIds, params: { maxTokens }, client });
  };
  const large = await openModel(goldenDirectory("llama"), 8192);
  const alone = await ask(20, 60, "short");
  const bytes: number[] = [];
  const both = await Promise.all([
    ask(2000, 80, "prompt"),
    ask(20, 5000, "answer"),
    ...Array.from({ length: 30 }, async () => {
      const result = await ask(20, 60, "short");
      bytes.push(large.model.memoryBytes() - large.model.weights.bytes - large.model.load().prefixBytes);
      return result;
    }),
  ]);
  for (const beside of both.slice(2)) expect(beside).toEqual(alone);
  // Thirty rows as long as the long prompt would be 60,000 positions.
  const { layers, kvHeads, headDim } = large.checkpoint.config;
  expect(Math.max(...bytes)).toBeLessThan(20_000 * 2 * layers * kvHeads * headDim * 4);
  await large.model.close();
});

test("a client that has enough waiting is refused and told when to come back; others are not", async () => {
  const left = new AbortController();
  const ask = (which: number, client: string) =>
    sampleAll(opened.model, { promptIds: prompt(which), params: endless, client, signal: left.signal });
  const many = Array.from({ length: MAX_SLOTS + MAX_WAITING_PER_CLIENT + 40 }, (_, i) => ask(i, "flood"));
  const refused = await Promise.any(
    many.map((asked) =>
      asked.then(
        () => Promise.reject(new Error("none")),
        (error) => error,
      ),
    ),
  );
  expect(refused).toMatchObject({ code: "queue_full", status: 429, retryAfterSeconds: expect.any(Number) });
  const other = sampleAll(opened.model, { promptIds: prompt(3), params: { maxTokens: 2 }, client: "other" });
  expect((await other)[0]!.ids).toHaveLength(2);
  left.abort();
  await Promise.allSettled(many);
});

test("the same for texts to be scored", async () => {
  const ids = Int32Array.from({ length: 40 }, (_, i) => i * 3);
  const left = new AbortController();
  const sequences = Array.from({ length: MAX_SCORING_PER_CLIENT + 10 }, () => ({ ids }));
  const asked = opened.model.logprobs({ sequences, temperature: 1, client: "flood", signal: left.signal });
  await expect(asked).rejects.toMatchObject({ code: "queue_full", status: 429 });
  const [fine] = await opened.model.logprobs({ sequences: [{ ids }], temperature: 1, client: "other" });
  expect(fine!.logprobs).toHaveLength(39);
});
