/** Downloads of a tokenizer alone, for models that run elsewhere, and how they share a cache with models. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openRepoCache } from "../../../src/model/hub/cache.ts";
import { resolveHub } from "../../../src/model/hub/resolve.ts";
import type { HubDeps, HubFiles } from "../../../src/model/hub/types.ts";
import { type FakeHub, startFakeHub } from "./fake-hub.ts";

const text = (value: string) => ({ contents: Buffer.from(value) });
const NAMES = ["chat_template.jinja", "config.json", "tokenizer.json", "tokenizer_config.json"];
const SHARD = "model-00001-of-00001.safetensors";
let hub: FakeHub;
let cacheDir: string;

beforeEach(async () => {
  cacheDir = mkdtempSync(join(tmpdir(), "preceptor-hub-"));
  hub = await startFakeHub({
    "adapter_config.json": text("{}"),
    "chat_template.jinja": text("{{ messages }}"),
    "config.json": text('{"model_type":"llama"}'),
    "README.md": text("# not needed"),
    [SHARD]: { contents: Buffer.alloc(1000, 7), lfs: true },
    "model.safetensors.index.json": text(JSON.stringify({ weight_map: { a: SHARD } })),
    "tokenizer.json": text("{}"),
    "tokenizer_config.json": text('{"eos_token":"x"}'),
  });
});
afterEach(async () => {
  await hub.close();
  rmSync(cacheDir, { recursive: true, force: true });
});

function resolve(files: HubFiles | undefined, overrides: Partial<HubDeps> = {}, revision?: string): Promise<string> {
  const deps: HubDeps = {
    cacheDir,
    endpoint: hub.endpoint,
    offline: false,
    fetch: globalThis.fetch,
    sleep: async () => undefined,
    ...overrides,
  };
  return resolveHub({ repo: "org/model", revision, files }, deps);
}
const atCdn = () => hub.requests.filter(({ host }) => host === "cdn");
const refused = (words: string) => ({ code: "hub_error", message: expect.stringContaining(words) });

test("only the small text files arrive, and then no network is needed", async () => {
  const snapshot = await resolve("tokenizer");
  expect(readdirSync(snapshot).sort()).toEqual(NAMES);
  expect(atCdn()).toEqual([]);
  hub.requests.length = 0;
  expect(await resolve("tokenizer", {}, hub.commit)).toBe(snapshot);
  expect(await resolve("tokenizer", { offline: true })).toBe(snapshot);
  expect(hub.requests).toEqual([]);
  await hub.close();
  expect(await resolve("tokenizer")).toBe(snapshot);
  hub = await startFakeHub({});
});

test.each(["main", undefined, "the commit"])("a tokenizer is no model: its weights are fetched (%s)", async (given) => {
  const revision = given === "the commit" ? hub.commit : given;
  await resolve("tokenizer", {}, revision);
  await expect(resolve("model", { offline: true }, revision)).rejects.toMatchObject(
    refused(`org/model@${revision ?? "main"} is not complete in the cache (model.safetensors is missing)`),
  );
  const snapshot = await resolve(undefined, {}, revision);
  expect(readdirSync(snapshot)).toEqual(expect.arrayContaining([...NAMES, SHARD, "model.safetensors.index.json"]));
  expect(atCdn()).toHaveLength(1);
  hub.requests.length = 0;
  expect(await resolve("tokenizer", {}, hub.commit)).toBe(snapshot);
  expect(await resolve("tokenizer", { offline: true }, revision)).toBe(snapshot);
  expect(hub.requests).toEqual([]);
});

test("both at once each get what they asked for", async () => {
  for (const _ of [1, 2, 3]) {
    const [tokenizer, model] = await Promise.all([resolve("tokenizer"), resolve("model")]);
    expect(model).toBe(tokenizer);
    expect(readdirSync(model)).toContain(SHARD);
  }
  expect(atCdn()).toHaveLength(1);
  expect(readdirSync(join(cacheDir, "models--org--model/refs"))).toEqual(["main"]);
});

test("a ref can be written by two at the same moment", async () => {
  const cache = openRepoCache(cacheDir, "org/model");
  await Promise.all(Array.from({ length: 20 }, () => cache.writeRef("main", hub.commit)));
  expect(readdirSync(join(cache.directory, "refs"))).toEqual(["main"]);
});

test("a tokenizer does not wait for the weights of a model that is under way", async () => {
  let release = () => {};
  const held = new Promise<void>((done) => {
    release = done;
  });
  const slowWeights: typeof fetch = async (url, init) => {
    if (String(url).includes(SHARD)) await held;
    return fetch(url, init);
  };
  const model = resolve("model", { fetch: slowWeights });
  await expect(resolve("tokenizer")).resolves.toContain(hub.commit);
  release();
  expect(readdirSync(await model)).toContain(SHARD);
});

test.each([
  ["vocab.json", ["merges.txt", "vocab.json"]],
  ["tokenizer.model", ["tokenizer.model"]],
])("a repository without weights and tokenizer.json may have %s", async (_, names) => {
  hub.files.clear();
  for (const name of names) hub.files.set(name, text("x"));
  const snapshot = await resolve("tokenizer");
  expect(readdirSync(snapshot).sort()).toEqual(names);
  expect(await resolve("tokenizer", { offline: true })).toBe(snapshot);
  await expect(resolve("model")).rejects.toMatchObject(refused("no model to load"));
});

test("a repository without a tokenizer is said to have none, and several GGUF files are no question", async () => {
  hub.files.set("a.gguf", { contents: Buffer.alloc(10), lfs: true });
  hub.files.set("b.gguf", { contents: Buffer.alloc(10), lfs: true });
  hub.files.delete(SHARD);
  await expect(resolve("tokenizer")).resolves.toContain(hub.commit);
  hub.files.delete("tokenizer.json");
  await expect(resolve("tokenizer")).rejects.toMatchObject(
    refused("org/model has none of tokenizer.json, tokenizer.model, vocab.json"),
  );
});

test("the cache says what it lacks", async () => {
  await expect(resolve("tokenizer", { offline: true })).rejects.toMatchObject(
    refused("the tokenizer of org/model@main is not complete in the cache (it is not there)"),
  );
  const snapshot = join(cacheDir, "models--org--model/snapshots", hub.commit);
  mkdirSync(snapshot, { recursive: true });
  writeFileSync(join(snapshot, "config.json"), "{}");
  await expect(resolve("tokenizer", { offline: true }, hub.commit)).rejects.toMatchObject(
    refused("(tokenizer.json is missing)"),
  );
});

test.each(["tokenizer", "model"] as const)("a %s download cut short is no complete tokenizer", async (files) => {
  // Alphabetical order would have brought tokenizer.json before the file that fails.
  hub.intercept = (request, response) =>
    request.url?.endsWith("tokenizer_config.json") === true && Boolean(response.writeHead(404).end());
  await expect(resolve(files)).rejects.toMatchObject({ code: "hub_error" });
  await expect(resolve("tokenizer", { offline: true }, hub.commit)).rejects.toMatchObject(refused("tokenizer.json"));
  hub.intercept = () => false;
  expect(readdirSync(await resolve("tokenizer", {}, hub.commit))).toContain("tokenizer_config.json");
});

test("a newer tokenizer does not take the complete model from offline use", async () => {
  hub.files.delete("adapter_config.json");
  const model = await resolve("model");
  hub.commit = "f".repeat(40);
  expect(await resolve("tokenizer")).toContain(hub.commit);
  expect(await resolve("model", { offline: true })).toBe(model);
  expect(readFileSync(join(cacheDir, "models--org--model/refs/main"), "utf8")).not.toBe(hub.commit);
  expect(await resolve("model")).toContain(hub.commit);
  expect(await resolve("model", { offline: true })).toContain(hub.commit);
});

test("a broken ref is overwritten", async () => {
  mkdirSync(join(cacheDir, "models--org--model/refs"), { recursive: true });
  writeFileSync(join(cacheDir, "models--org--model/refs/main"), "../../etc");
  await resolve("tokenizer");
  expect(readFileSync(join(cacheDir, "models--org--model/refs/main"), "utf8")).toBe(hub.commit);
});
