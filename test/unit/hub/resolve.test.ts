import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterEach, beforeEach, expect, test } from "vitest";
import { resolveHub } from "../../../src/model/hub/resolve.ts";
import type { DownloadProgress, HubDeps } from "../../../src/model/hub/types.ts";
import { etagOf, type FakeHub, sendFile, startFakeHub } from "./fake-hub.ts";

const run = promisify(execFile);
const weights = randomBytes(300_000);
const text = (value: string) => ({ contents: Buffer.from(value) });
let hub: FakeHub;
let cacheDir: string;
let pauses: number[];

beforeEach(async () => {
  pauses = [];
  cacheDir = mkdtempSync(join(tmpdir(), "preceptor-hub-"));
  hub = await startFakeHub({
    "config.json": text('{"model_type":"llama"}'),
    "tokenizer.json": text("{}"),
    "README.md": text("# not needed"),
    "pytorch_model.bin": text("not needed"),
    "onnx/model.onnx": text("not needed"),
    "model.safetensors": { contents: weights, lfs: true },
    "consolidated.safetensors": { contents: weights, lfs: true },
  });
});
afterEach(async () => {
  await hub.close();
  rmSync(cacheDir, { recursive: true, force: true });
});

function deps(overrides: Partial<HubDeps> = {}): HubDeps {
  return {
    cacheDir,
    endpoint: hub.endpoint,
    offline: false,
    fetch: globalThis.fetch,
    sleep: async (milliseconds) => void pauses.push(milliseconds),
    ...overrides,
  };
}
const resolve = (overrides: Partial<HubDeps> = {}, revision?: string) =>
  resolveHub({ repo: "org/model", revision }, deps(overrides));
const repoDirectory = () => join(cacheDir, "models--org--model");
const bodies = () => hub.requests.filter(({ method, url }) => method === "GET" && !url.startsWith("/api"));

test("the needed files arrive in the standard cache layout", async () => {
  const seen: DownloadProgress[] = [];
  const snapshot = await resolve({ onProgress: (progress) => seen.push(progress) });
  expect(snapshot).toBe(join(repoDirectory(), "snapshots", hub.commit));
  expect(readdirSync(snapshot).sort()).toEqual(["config.json", "model.safetensors", "tokenizer.json"]);
  expect(readFileSync(join(snapshot, "model.safetensors")).equals(weights)).toBe(true);
  for (const name of readdirSync(snapshot)) {
    expect(readlinkSync(join(snapshot, name))).toBe(`../../blobs/${etagOf(hub.files.get(name)!)}`);
  }
  expect(readFileSync(join(repoDirectory(), "refs/main"), "utf8")).toBe(hub.commit);
  expect(readdirSync(join(repoDirectory(), "blobs"))).toHaveLength(3);
  expect(seen.at(-1)).toEqual({ file: "model.safetensors", received: 300_000, total: 300_000 });
  expect(
    seen.every(({ received }, i) => i === 0 || seen[i - 1]!.file !== seen[i]!.file || received > seen[i - 1]!.received),
  ).toBe(true);
});

test("what is there is not fetched again; a complete commit needs no network at all", async () => {
  await resolve();
  hub.requests.length = 0;
  await resolve();
  expect(bodies()).toEqual([]);
  hub.requests.length = 0;
  expect(await resolve({}, hub.commit)).toContain(hub.commit);
  expect(hub.requests).toEqual([]);
});

test("blobs of other tools are found", async () => {
  mkdirSync(join(repoDirectory(), "blobs"), { recursive: true });
  writeFileSync(join(repoDirectory(), "blobs", etagOf(hub.files.get("model.safetensors")!)), weights);
  const snapshot = await resolve();
  expect(readFileSync(join(snapshot, "model.safetensors")).equals(weights)).toBe(true);
  expect(hub.requests.filter(({ host }) => host === "cdn")).toEqual([]);
});

test("an interrupted download goes on where it stopped", async () => {
  mkdirSync(join(repoDirectory(), "blobs"), { recursive: true });
  const partial = join(repoDirectory(), "blobs", `${etagOf(hub.files.get("model.safetensors")!)}.incomplete`);
  writeFileSync(partial, weights.subarray(0, 123_456));
  const snapshot = await resolve();
  expect(readFileSync(join(snapshot, "model.safetensors")).equals(weights)).toBe(true);
  expect(hub.requests.filter(({ host }) => host === "cdn").map(({ range }) => range)).toEqual(["bytes=123456-"]);
  expect(existsSync(partial)).toBe(false);
});

test("cut connections are resumed until the file is there", async () => {
  let cuts = 0;
  hub.intercept = (request, response, host) => {
    if (host !== "cdn" || cuts >= 9) return false;
    cuts++;
    const from = Number(/\d+/.exec(request.headers.range ?? "")?.[0] ?? 0);
    response.writeHead(from > 0 ? 206 : 200, {
      "content-length": weights.length - from,
      "content-range": `bytes ${from}-${weights.length - 1}/${weights.length}`,
    });
    response.write(weights.subarray(from, from + 20_000), () => setTimeout(() => response.destroy(), 20));
    return true;
  };
  const snapshot = await resolve();
  expect(readFileSync(join(snapshot, "model.safetensors")).equals(weights)).toBe(true);
  expect(cuts).toBe(9); // more than the six attempts without progress that would end it
});

test("a server without ranges sends from the start", async () => {
  mkdirSync(join(repoDirectory(), "blobs"), { recursive: true });
  const partial = join(repoDirectory(), "blobs", `${etagOf(hub.files.get("model.safetensors")!)}.incomplete`);
  writeFileSync(partial, weights.subarray(0, 1000));
  hub.intercept = (request, response, host) => {
    if (host !== "cdn") return false;
    delete request.headers.range;
    sendFile(hub, "model.safetensors", request, response);
    return true;
  };
  expect(readFileSync(join(await resolve(), "model.safetensors")).equals(weights)).toBe(true);
});

test("a partial file of other contents is found out by its hash and fetched anew", async () => {
  mkdirSync(join(repoDirectory(), "blobs"), { recursive: true });
  const partial = join(repoDirectory(), "blobs", `${etagOf(hub.files.get("model.safetensors")!)}.incomplete`);
  writeFileSync(partial, randomBytes(1000));
  expect(readFileSync(join(await resolve(), "model.safetensors")).equals(weights)).toBe(true);
});

test.each(["model.safetensors", "config.json"])("a wrong hash of %s is refused and never gets a name", async (name) => {
  const file = hub.files.get(name)!;
  const wrong = Buffer.from(file.contents);
  wrong[0]! ^= 1;
  hub.intercept = (request, response) => {
    if (request.method !== "GET" || !request.url?.endsWith(name) || (file.lfs && request.url.startsWith("/org")))
      return false;
    response.writeHead(200, { "content-length": wrong.length, etag: `"${etagOf(file)}"` }).end(wrong);
    return true;
  };
  await expect(resolve()).rejects.toMatchObject({ code: "hub_error", message: expect.stringContaining("hash") });
  const blobs = existsSync(join(repoDirectory(), "blobs")) ? readdirSync(join(repoDirectory(), "blobs")) : [];
  expect(blobs.filter((blob) => blob.startsWith(etagOf(file)))).toEqual([]);
});

test("more bytes than announced are refused", async () => {
  hub.intercept = (_, response, host) => {
    if (host !== "cdn") return false;
    response.writeHead(200).end(Buffer.concat([weights, weights]));
    return true;
  };
  await expect(resolve()).rejects.toMatchObject({ code: "hub_error", message: expect.stringContaining("more than") });
});

test("the token goes to the hub and to no other host", async () => {
  await resolve({ token: "hf_secret" });
  expect(hub.requests.length).toBeGreaterThan(4);
  for (const { host, authorization } of hub.requests) {
    expect(authorization).toBe(host === "hub" ? "Bearer hf_secret" : undefined);
  }
});

test("hosts outside the allowed ones are not reached", async () => {
  await expect(resolve({ allowedHosts: ["example.org"] })).rejects.toMatchObject({
    code: "hub_error",
    message: expect.stringContaining("PRECEPTOR_ALLOWED_HOSTS"),
  });
  expect(hub.requests.filter(({ host }) => host === "cdn")).toEqual([]);
  await expect(resolve({ allowedHosts: ["localhost"] })).resolves.toContain(hub.commit);
});

test("endless redirects end", async () => {
  hub.intercept = (request, response) => {
    response.writeHead(302, { location: request.url }).end();
    return true;
  };
  await expect(resolve()).rejects.toMatchObject({ code: "hub_error", message: expect.stringContaining("redirects") });
});

test("errors of the hub are waited for, then named", async () => {
  let failures = 0;
  hub.intercept = (_, response) => {
    if (failures >= 3) return false;
    failures++;
    response.writeHead(failures === 1 ? 429 : 503, { "retry-after": "2" }).end();
    return true;
  };
  await resolve();
  expect(pauses).toHaveLength(3);
  expect(pauses.every((milliseconds) => milliseconds >= 2000)).toBe(true);
  hub.intercept = (_, response) => Boolean(response.writeHead(500).end());
  await expect(resolve({ cacheDir: join(cacheDir, "empty") })).rejects.toMatchObject({
    code: "hub_error",
    message: expect.stringContaining("500"),
  });
});

test.each([
  [401, {}, undefined, "set HF_TOKEN"],
  [403, { "x-error-code": "GatedRepo" }, undefined, "set HF_TOKEN"],
  [403, { "x-error-code": "GatedRepo" }, "hf_x", "no access"],
  [404, { "x-error-code": "RepoNotFound" }, "hf_x", "does not have org/model@main"],
] as const)("status %i %o with token %s is explained", async (status, headers, token, words) => {
  hub.intercept = (_, response) => Boolean(response.writeHead(status, headers).end());
  const refused = resolve({ token });
  await expect(refused).rejects.toMatchObject({ code: "hub_error", message: expect.stringContaining(words) });
  await expect(refused).rejects.not.toMatchObject({ message: expect.stringContaining("hf_x") });
  expect(pauses).toEqual([]);
});

test("an unknown revision is named", async () => {
  await expect(resolve({}, "v9")).rejects.toMatchObject({
    code: "hub_error",
    message: expect.stringContaining("revision v9"),
  });
});

test("offline uses the cache, and says what it lacks", async () => {
  await expect(resolve({ offline: true })).rejects.toMatchObject({
    code: "hub_error",
    message: expect.stringContaining("HF_HUB_OFFLINE"),
  });
  const snapshot = await resolve();
  hub.requests.length = 0;
  expect(await resolve({ offline: true })).toBe(snapshot);
  rmSync(join(repoDirectory(), "blobs", etagOf(hub.files.get("model.safetensors")!)));
  await expect(resolve({ offline: true })).rejects.toMatchObject({
    message: expect.stringContaining("model.safetensors is missing"),
  });
  expect(hub.requests).toEqual([]);
});

test("a hub that cannot be reached leaves what the cache has", async () => {
  const snapshot = await resolve();
  await hub.close();
  expect(await resolve()).toBe(snapshot);
  await expect(resolve({ cacheDir: join(cacheDir, "empty") })).rejects.toMatchObject({
    code: "hub_error",
    message: expect.stringContaining("ECONNREFUSED"),
  });
  hub = await startFakeHub({});
});

test("shards are those of the index, and all of them count", async () => {
  hub.files.delete("model.safetensors");
  for (const name of ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]) {
    hub.files.set(name, { contents: randomBytes(1000), lfs: true });
  }
  const index = { weight_map: { a: "model-00001-of-00002.safetensors", b: "model-00002-of-00002.safetensors" } };
  hub.files.set("model.safetensors.index.json", text(JSON.stringify(index)));
  const snapshot = await resolve();
  expect(readdirSync(snapshot).filter((name) => name.includes("-of-"))).toHaveLength(2);
  rmSync(join(snapshot, "model-00002-of-00002.safetensors"));
  await expect(resolve({ offline: true })).rejects.toMatchObject({ message: expect.stringContaining("model-00002") });
});

test("a GGUF is taken where there are no safetensors and no choice", async () => {
  hub.files.delete("model.safetensors");
  hub.files.delete("consolidated.safetensors");
  await expect(resolve()).rejects.toMatchObject({ code: "hub_error", message: expect.stringContaining("PyTorch") });
  hub.files.set("m.Q4_K_M.gguf", { contents: randomBytes(1000), lfs: true });
  expect(readdirSync(await resolve())).toContain("m.Q4_K_M.gguf");
  hub.files.set("m.Q8_0.gguf", { contents: randomBytes(1000), lfs: true });
  await expect(resolve()).rejects.toMatchObject({ message: expect.stringContaining("2 GGUF files") });
});

test("two downloads of one file at once do it once", async () => {
  const [first, second] = await Promise.all([resolve(), resolve({}, hub.commit)]);
  expect(first).toBe(second);
  expect(hub.requests.filter(({ host }) => host === "cdn")).toHaveLength(1);
});

test("a lock of a process that is gone is taken over, a held one is waited for", async () => {
  const locks = join(cacheDir, ".locks/models--org--model");
  const lock = (name: string) => join(locks, `${etagOf(hub.files.get(name)!)}.preceptor.lock`);
  mkdirSync(locks, { recursive: true });
  writeFileSync(lock("config.json"), `${hostname()} 999999999`);
  writeFileSync(lock("model.safetensors"), `${hostname()} ${process.pid}`);
  await expect(resolve({ signal: AbortSignal.timeout(1000) })).rejects.toMatchObject({ code: "cancelled" });
  expect(readdirSync(join(repoDirectory(), "snapshots", hub.commit)).sort()).toEqual(["config.json", "tokenizer.json"]);
  rmSync(lock("model.safetensors"));
  await expect(resolve()).resolves.toContain(hub.commit);
  expect(readdirSync(locks)).toEqual([]);
});

test("two processes that download at once share the work", async () => {
  hub.intercept = (request, response, host) => {
    if (host !== "cdn") return false;
    setTimeout(() => sendFile(hub, "model.safetensors", request, response), 300);
    return true;
  };
  const child = fileURLToPath(new URL("./download-child.ts", import.meta.url));
  const outputs = await Promise.all(
    [1, 2].map(() => run(process.execPath, ["--import", "tsx", child, cacheDir, hub.endpoint])),
  );
  const snapshot = join(repoDirectory(), "snapshots", hub.commit);
  expect(outputs.map(({ stdout }) => stdout)).toEqual([snapshot, snapshot]);
  expect(readFileSync(join(snapshot, "model.safetensors")).equals(weights)).toBe(true);
  expect(hub.requests.filter(({ host }) => host === "cdn")).toHaveLength(1);
});

test("a download can be cancelled, and goes on later", async () => {
  const controller = new AbortController();
  hub.intercept = (request, response, host) => {
    if (host !== "cdn" || request.headers.range) return false;
    response.writeHead(200, { "content-length": weights.length });
    response.write(weights.subarray(0, 50_000), () => setTimeout(() => controller.abort(), 50));
    return true;
  };
  await expect(resolve({ signal: controller.signal })).rejects.toMatchObject({ code: "cancelled" });
  expect(readFileSync(join(await resolve(), "model.safetensors")).equals(weights)).toBe(true);
  expect(hub.requests.at(-1)?.range).toMatch(/^bytes=[1-9]/);
});

test.each(["", "../x", "a/b/c", "org/..", "org/mo del", "/org", "org/\0"])("the name %j is refused", async (repo) => {
  await expect(resolveHub({ repo }, deps())).rejects.toMatchObject({ code: "invalid_value" });
  await expect(resolveHub({ repo: "org/model", revision: repo || "a/../b" }, deps())).rejects.toBeInstanceOf(Error);
});

test("a server that is no hub is said to be none", async () => {
  hub.intercept = (_, response) => Boolean(response.writeHead(200).end("<html>hello</html>"));
  await expect(resolve()).rejects.toMatchObject({
    code: "hub_error",
    message: expect.stringContaining("Hugging Face hub?"),
  });
});
