/** LoRA adapters at servers that load them at run time. */
import { expect, test, vi } from "vitest";
import { MAX_ADAPTERS } from "../../../src/engine/openai/limits.ts";
import type { AdapterFiles } from "../../../src/model/checkpoint.ts";
import type { FakeVllm } from "./fake-vllm.ts";
import { adapter, connect, eventually, fake, farthest, PROMPT, sampleAll, score } from "./fixture.ts";
import { drawIds, ownLogprobs, TOY, type Toy } from "./toy-model.ts";

vi.mock("../../../src/engine/openai/limits.ts", async (original) => {
  const { QUICK } = await import("./quick-limits.ts");
  return { ...(await original<object>()), ...QUICK, MAX_ADAPTERS: 3 };
});

const toyWith = ({ directory }: AdapterFiles): Toy => ({ ...TOY, adapter: directory });
const nameOf = ({ hash }: AdapterFiles): string => `preceptor-${hash.slice("sha256:".length, "sha256:".length + 16)}`;
const loads = ({ seen }: FakeVllm) => seen.requests.filter(({ path }) => path === "/v1/load_lora_adapter");
const unloads = ({ seen }: FakeVllm) => seen.requests.filter(({ path }) => path === "/v1/unload_lora_adapter");

async function expectSamples(model: Parameters<typeof sampleAll>[0], files: AdapterFiles, seed = 1): Promise<void> {
  const [sampled] = await sampleAll(model, { adapter: files, seed });
  expect(sampled!.ids).toEqual(drawIds(toyWith(files), PROMPT, { seed }, 12));
}

test("an adapter is loaded once per replica, before its first use, under a name of its content", async () => {
  const servers = [await fake({ lora: true, tokenMs: 2 }), await fake({ lora: true, tokenMs: 2 })];
  const { model } = await connect(servers);
  expect(model.capabilities.adapters).toBe(true);
  const files = adapter("teacher");
  await Promise.all(Array.from({ length: 10 }, (_, seed) => expectSamples(model, files, seed)));
  await score(model, PROMPT, { adapter: files });
  for (const server of servers) {
    expect(loads(server).map(({ body }) => body)).toEqual([{ lora_name: nameOf(files), lora_path: files.directory }]);
    const order = server.seen.requests.map(({ path }) => path);
    expect(order.indexOf("/v1/load_lora_adapter")).toBeLessThan(order.indexOf("/v1/completions"));
    expect(server.completions().every(({ body }) => body.model === nameOf(files))).toBe(true);
  }
  const [plain] = await sampleAll(model);
  expect(plain!.ids).toEqual(drawIds(TOY, PROMPT, { seed: 1 }, 12));
});

test("scores are the adapter's, and the adapter's only where it was asked for", async () => {
  const { model } = await connect([await fake({ lora: true })]);
  const files = adapter("student");
  const [plain, adapted] = [await score(model, PROMPT), await score(model, PROMPT, { adapter: files })];
  expect(farthest(plain.logprobs, ownLogprobs(TOY, PROMPT))).toBeLessThan(1e-6);
  expect(farthest(adapted.logprobs, ownLogprobs(toyWith(files), PROMPT))).toBeLessThan(1e-6);
  expect(farthest(plain.logprobs, adapted.logprobs)).toBeGreaterThan(0.05);
});

test("two versions side by side: a group is of one, also when its server dies on the way", async () => {
  const servers = [await fake({ lora: true, tokenMs: 3 }), await fake({ lora: true, tokenMs: 1 })] as const;
  const { model, of } = await connect(servers);
  const [before, after] = [adapter("v1"), adapter("v2")];
  let tokens = 0;
  let killed: Promise<void> | undefined;
  const params = { maxTokens: 24 };
  const first = sampleAll(model, { n: 3, adapter: before, params }, ({ type }) => {
    if (type === "token" && ++tokens === 20) killed = servers[0].kill();
  });
  await eventually(() => servers[0].seen.openStreams === 1);
  await Promise.all([expectSamples(model, after), expectSamples(model, after, 2), expectSamples(model, before, 3)]);
  const sampled = await first;
  await killed;
  expect(of("resumed")).toMatchObject([{ sequences: 3 }]);
  const resumed = servers[1].completions().filter(({ body }) => body.prompt!.length > PROMPT.length);
  expect(resumed).toHaveLength(3);
  for (const { body } of resumed) {
    expect(body.model).toBe(nameOf(before));
    const at = body.prompt!.length - PROMPT.length;
    const whole = sampled.find(({ ids }) => ids.slice(0, at).every((id, i) => id === body.prompt![PROMPT.length + i]))!;
    expect(whole.ids.slice(at)).toEqual(drawIds(toyWith(before), body.prompt!, { seed: body.seed! }, 24 - at));
  }
  sampled.forEach(({ ids }, i) => {
    expect(ids.slice(0, 5)).toEqual(drawIds(toyWith(before), PROMPT, { seed: 1 + i }, 5));
  });
});

test("one that was loaded by somebody else is used as it is", async () => {
  const server = await fake({ lora: true });
  const { model } = await connect([server]);
  const files = adapter("shared");
  const other = await connect([server]);
  await expectSamples(other.model, files);
  await expectSamples(model, files);
  expect(server.adapters.size).toBe(1);
});

test("a server that has forgotten it loads it again, every replica once", async () => {
  const servers = [await fake({ lora: true, tokenMs: 1 }), await fake({ lora: true, tokenMs: 1 })];
  const { model, of } = await connect(servers);
  const files = adapter("teacher");
  const all = () => Promise.all(Array.from({ length: 6 }, (_, i) => expectSamples(model, files, i)));
  await all();
  for (const server of servers) server.forgetAdapters();
  await expectSamples(model, files, 9);
  await all();
  for (const server of servers) {
    expect(server.adapters.get(nameOf(files))).toBe(files.directory);
    expect(loads(server).length).toBeGreaterThanOrEqual(2);
  }
  expect(of("failure").every(({ retried, failure }) => retried && failure === "refused")).toBe(true);
  expect(of("opened")).toEqual([]);
});

test("a server that does not know a name that it was never given refuses it", async () => {
  const server = await fake({ lora: true });
  const { model } = await connect([server]);
  server.misbehave(
    { kind: "status", status: 404, message: "No adapter found for /adapters/gone" },
    { path: /load_lora/ },
  );
  const refusal = await sampleAll(model, { adapter: adapter("gone") }).catch((error: unknown) => error);
  expect(refusal).toMatchObject({ code: "backend_refused" });
  expect((refusal as Error).message).toContain("No adapter found");
  server.behave();
  await expectSamples(model, adapter("gone"));
});

test("a server that fails to load it is tried elsewhere, and again later", async () => {
  const [a, b] = [await fake({ lora: true }), await fake({ lora: true })];
  const { model } = await connect([a, b]);
  const files = adapter("heavy");
  a.misbehave({ kind: "status", status: 500, message: "out of memory" }, { path: /load_lora/, times: 1 });
  await expectSamples(model, files);
  expect(b.adapters.size).toBe(1);
  expect(a.adapters.size).toBe(0);
  await Promise.all(Array.from({ length: 6 }, (_, i) => expectSamples(model, files, i)));
  expect(a.adapters.size).toBe(1);
});

test("the least recently used ones go when there are more than are kept; those in use stay", async () => {
  const server = await fake({ lora: true });
  const { model } = await connect([server]);
  expect(MAX_ADAPTERS).toBe(3);
  const [one, two, three, four, five] = ["one", "two", "three", "four", "five"].map(adapter) as [
    AdapterFiles,
    AdapterFiles,
    AdapterFiles,
    AdapterFiles,
    AdapterFiles,
  ];
  for (const files of [one, two, three]) await expectSamples(model, files);
  expect(unloads(server)).toEqual([]);
  await expectSamples(model, one);
  await expectSamples(model, four);
  await eventually(() => !server.adapters.has(nameOf(two)));
  expect([...server.adapters.keys()].sort()).toEqual([one, three, four].map(nameOf).sort());
  // One that is in use outlasts those that were used after it.
  const cancelling = new AbortController();
  server.settings.tokenMs = 10;
  const using = sampleAll(model, { adapter: three, signal: cancelling.signal, params: { maxTokens: 200 } });
  await eventually(() => server.seen.openStreams === 1);
  server.settings.tokenMs = 0;
  for (const files of [one, four, two, five]) await score(model, PROMPT, { adapter: files });
  await eventually(() => server.adapters.size === 3);
  expect(server.adapters.has(nameOf(three))).toBe(true);
  cancelling.abort();
  await using;
  await expectSamples(model, one);
  await expectSamples(model, two);
  await eventually(() => !server.adapters.has(nameOf(three)));
});

test("a server without these routes cannot; asked all the same it says so", async () => {
  const server = await fake();
  const { model } = await connect([server]);
  expect(model.capabilities.adapters).toBe(false);
  await expect(sampleAll(model, { adapter: adapter("teacher") })).rejects.toMatchObject({ code: "backend_refused" });
});

test("files that have changed are not loaded under the old version's name", async () => {
  const server = await fake({ lora: true });
  const files = adapter("teacher");
  let { hash } = files;
  const { model } = await connect([server], {}, { hashAdapter: async () => hash });
  hash = adapter("other").hash;
  const refusal = await sampleAll(model, { adapter: files }).catch((error: unknown) => error);
  expect(refusal).toMatchObject({ code: "invalid_adapter", param: "adapter" });
  expect((refusal as Error).message).toMatch(/teacher have changed.*PATCH/);
  expect(loads(server)).toEqual([]);
  hash = files.hash;
  await expectSamples(model, files);
});

test("nobody waits for the loading of others who have left, and the last one to leave ends it", async () => {
  const server = await fake({ lora: true });
  const { model } = await connect([server]);
  const files = adapter("slow");
  server.misbehave({ kind: "hang" }, { path: /load_lora/, times: 1 });
  const leaving = [new AbortController(), new AbortController()] as const;
  const ended: number[] = [];
  const waiting = leaving.map(async ({ signal }, i) => {
    await sampleAll(model, { adapter: files, signal });
    ended.push(i);
  });
  await eventually(() => loads(server).length === 1 && model.load().active === 2);
  leaving[0].abort();
  await waiting[0];
  expect(ended).toEqual([0]);
  leaving[1].abort();
  await Promise.all(waiting);
  await expectSamples(model, files);
  expect(loads(server)).toHaveLength(2);
}, 10_000);
