/** The whole program with a real (tiny) model: many at once, callers that leave, versions, restarts, the official client. */
import { chmod, cp, mkdtemp, readFile, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import OpenAI from "openai";
import { afterAll, beforeAll, expect, test } from "vitest";
import { GOLDEN, type Running, startPreceptor } from "./running.ts";

// biome-ignore lint/suspicious/noExplicitAny: tests look into whatever came back
type Json = any;

let models: string;
let server: Running;
beforeAll(async () => {
  models = await mkdtemp(path.join(tmpdir(), "preceptor-models-"));
  for (const name of ["llama", "qwen2"])
    await cp(path.join(GOLDEN, name), path.join(models, name), { recursive: true });
  await writeFile(path.join(models, "broken.gguf"), lyingGguf());
  server = await startPreceptor({ PRECEPTOR_MODELS_DIRS: models });
});
afterAll(async () => {
  await server?.close();
  await rm(models, { recursive: true, force: true });
});

/** Begins as a GGUF file does (magic, version 3, one tensor, one key); then a key claims to be 2^60 bytes long. */
function lyingGguf(): Uint8Array {
  const header = Buffer.alloc(32);
  header.write("GGUF");
  header.writeUInt32LE(3, 4);
  header.writeBigUInt64LE(1n, 8);
  header.writeBigUInt64LE(1n, 16);
  header.writeBigUInt64LE(2n ** 60n, 24);
  return header;
}

const request = { teacher: "llama", question: "What is 2+3?", solution: "5", max_tokens: 40 };

async function streamed(body: object, signal?: AbortSignal): Promise<Json[]> {
  const response = await fetch(`${server.url}/v1/explanations`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...request, stream: true, ...body }),
    ...(signal ? { signal } : {}),
  });
  const text = await response.text();
  return text.split("\n\n").flatMap((block) => {
    const data = /^data: (.*)$/m.exec(block)?.[1];
    return data ? [JSON.parse(data)] : [];
  });
}

async function gauge(name: string): Promise<number> {
  const text = await (await fetch(`${server.url}/metrics`)).text();
  return Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1]);
}

test("what lies in the models directory answers at once; what is broken is left out", async () => {
  const { data } = await server.get<Json>("/v1/models");
  expect(data.map((model: Json) => model.id).sort()).toEqual(["llama", "qwen2"]);
  expect(await server.get<Json>("/v1/teachers/llama")).toMatchObject({
    object: "teacher",
    version: 1,
    format: "stratos",
    precision: "fp32",
    parameters: 143_808,
  });
});

test("sixteen streams at once all finish, and a seed gives the same text alone and beside fifteen others", async () => {
  const alone = await server.post<Json>("/v1/explanations", { ...request, seed: 77 });
  const crowd = await Promise.all(
    Array.from({ length: 16 }, (_, i) => streamed(i === 5 ? { seed: 77 } : { seed: i, question: `What is ${i}+3?` })),
  );
  for (const events of crowd) expect(events.at(-1).type).toBe("explanation.completed");
  expect(crowd[5]?.at(-1).explanation.choices[0].explanation).toBe(alone.choices[0].explanation);
  expect((await server.get<Json>("/v1/teachers/llama")).capabilities.batch_invariant).toBe(true);
});

test("a client that leaves mid-stream frees its slot within a second", async () => {
  const controller = new AbortController();
  const response = await fetch(`${server.url}/v1/explanations`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...request, stream: true, max_tokens: 3000 }),
    signal: controller.signal,
  });
  await response.body?.getReader().read();
  await expect.poll(() => gauge("preceptor_sequences_active")).toBe(1);
  controller.abort();
  await expect.poll(() => gauge("preceptor_sequences_active"), { timeout: 1000 }).toBe(0);
});

test("probes answer while a model computes", async () => {
  const work = server.post<Json>("/v1/explanations", { ...request, n: 8, max_tokens: 100 });
  for (let i = 0; i < 20; i++) expect(await server.get("/healthz")).toEqual({ status: "ok" });
  expect((await work).choices).toHaveLength(8);
});

test("the official client drives completions and chat, streamed and not", async () => {
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 });
  const asked = { model: "qwen2", messages: [{ role: "user" as const, content: "Hi" }], max_tokens: 12, seed: 3 };
  const plain = await client.chat.completions.create(asked);
  let text = "";
  for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
    text += chunk.choices[0]?.delta.content ?? "";
  }
  expect(text).toBe(plain.choices[0]?.message.content);
  const completion = await client.completions.create({ model: "qwen2", prompt: "2+3", max_tokens: 5, seed: 1 });
  expect(completion.usage?.completion_tokens).toBeLessThanOrEqual(5);
  await expect(client.completions.create({ model: "nobody", prompt: "x" })).rejects.toBeInstanceOf(
    OpenAI.NotFoundError,
  );
});

test("an adapter makes a new version; old versions stay what they were", async () => {
  await server.post("/v1/teachers", { id: "versioned", model: "llama" }, 201);
  expect((await server.post<Json>("/v1/teachers", { id: "versioned", model: "llama" }, 200)).version).toBe(1);
  await server.post("/v1/teachers", { id: "versioned", model: "qwen2" }, 409);
  const patched = await fetch(`${server.url}/v1/teachers/versioned`, {
    method: "PATCH",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ adapter: "llama/adapter" }),
  });
  expect(await patched.json()).toMatchObject({ version: 2, adapter: "llama/adapter" });
  const ask = (teacher: string) =>
    server.post<Json>("/v1/explanations", { ...request, teacher, seed: 5, temperature: 0 });
  const [base, first, second] = [await ask("llama"), await ask("versioned@1"), await ask("versioned")];
  expect(first.choices[0].explanation).toBe(base.choices[0].explanation);
  expect(second.choices[0].explanation).not.toBe(base.choices[0].explanation);
  expect(second.teacher).toEqual({ id: "versioned", version: 2 });
  // One loaded base serves both versions and the bare model.
  expect(await gauge("preceptor_models_loaded")).toBeLessThanOrEqual(2);
});

test.each<[string, string, object, number, string]>([
  ["an unknown field", "/v1/explanations", { ...request, tempurature: 1 }, 400, "unknown_parameter"],
  ["a wrong type", "/v1/explanations", { ...request, n: "two" }, 400, "invalid_value"],
  ["an empty question", "/v1/explanations", { ...request, question: "" }, 400, "invalid_value"],
  ["an enormous text", "/v1/explanations", { ...request, question: "a ".repeat(900_000) }, 400, "invalid_value"],
  [
    "a prompt over the context",
    "/v1/explanations",
    { ...request, question: "a b ".repeat(20_000) },
    400,
    "context_length_exceeded",
  ],
  ["token ids out of range", "/v1/completions", { model: "llama", prompt: [1, 99_999] }, 400, "invalid_token_ids"],
  ["a directory outside", "/v1/teachers", { id: "x", model: "/etc" }, 400, "model_source_not_allowed"],
  ["a link that leads outside", "/v1/teachers", { id: "x", model: "escape" }, 400, "model_source_not_allowed"],
  ["nothing there", "/v1/teachers", { id: "x", model: "missing" }, 400, "model_source_not_found"],
  ["a broken GGUF", "/v1/teachers", { id: "x", model: "broken.gguf" }, 400, "invalid_checkpoint"],
  ["an unknown family", "/v1/teachers", { id: "x", model: "strange" }, 400, "unsupported_architecture"],
  ["weights cut short", "/v1/teachers", { id: "x", model: "cut" }, 400, "invalid_checkpoint"],
  ["a config against its weights", "/v1/teachers", { id: "x", model: "lying" }, 400, "invalid_checkpoint"],
  [
    "a device that is not there",
    "/v1/teachers",
    { id: "x", model: "llama", device: "cuda:0" },
    400,
    "unsupported_by_backend",
  ],
])("%s is refused and the server lives", async (_, route, body, status, code) => {
  await prepareBadModels();
  const answer = await server.post<Json>(route, body, status);
  expect(answer.error).toMatchObject({ code });
  expect(answer.error.message.length).toBeGreaterThan(10);
  expect(await server.get("/healthz")).toEqual({ status: "ok" });
});

let prepared = false;
async function prepareBadModels(): Promise<void> {
  if (prepared) return;
  prepared = true;
  const config = JSON.parse(await readFile(path.join(models, "llama/config.json"), "utf8"));
  const make = async (name: string, change: (dir: string) => Promise<void>): Promise<void> => {
    const directory = path.join(models, name);
    await cp(path.join(GOLDEN, "llama"), directory, { recursive: true });
    await change(directory);
  };
  await symlink("/etc", path.join(models, "escape"));
  await make("strange", (dir) =>
    writeFile(path.join(dir, "config.json"), JSON.stringify({ ...config, model_type: "mamba" })),
  );
  await make("lying", (dir) =>
    writeFile(path.join(dir, "config.json"), JSON.stringify({ ...config, hidden_size: 128 })),
  );
  await make("cut", async (dir) => {
    await chmod(path.join(dir, "model.safetensors"), 0o644);
    await truncate(path.join(dir, "model.safetensors"), 100_000);
  });
}

test("after a restart models, explanations and texts are what they were", async () => {
  const before = await server.post<Json>("/v1/explanations", { ...request, seed: 9 });
  const dataDir = await mkdtemp(path.join(tmpdir(), "preceptor-restart-"));
  const first = await startPreceptor({ PRECEPTOR_MODELS_DIRS: models }, dataDir);
  const made = await first.post<Json>("/v1/explanations", { ...request, seed: 9 });
  expect(made.choices[0].explanation).toBe(before.choices[0].explanation);
  await expect(startPreceptor({ PRECEPTOR_MODELS_DIRS: models }, dataDir)).rejects.toMatchObject({
    code: "data_dir_locked",
  });
  await first.close();
  const second = await startPreceptor({ PRECEPTOR_MODELS_DIRS: models }, dataDir);
  expect(await second.get(`/v1/explanations/${made.id}`)).toEqual(made);
  expect((await second.post<Json>("/v1/explanations", { ...request, seed: 9 })).choices).toEqual(made.choices);
  await second.close();
  await rm(dataDir, { recursive: true, force: true });
});

test("work in the background outlives its server and becomes what it would have been", async () => {
  const dataDir = await mkdtemp(path.join(tmpdir(), "preceptor-background-"));
  const asked = { ...request, seed: 21, max_tokens: 1500, question: "What is 20+3?" };
  const first = await startPreceptor({ PRECEPTOR_MODELS_DIRS: models }, dataDir);
  const { id } = await first.post<Json>("/v1/explanations", { ...asked, background: true });
  const begun = async () => (await first.get<Json>(`/v1/explanations/${id}`)).status;
  await expect.poll(begun, { timeout: 20_000 }).toBe("in_progress");
  await first.close();
  const second = await startPreceptor({ PRECEPTOR_MODELS_DIRS: models }, dataDir);
  const status = async () => (await second.get<Json>(`/v1/explanations/${id}`)).status;
  await expect.poll(status, { timeout: 20_000 }).toBe("completed");
  const done = await second.get<Json>(`/v1/explanations/${id}`);
  const straight = await second.post<Json>("/v1/explanations", asked);
  expect(done.choices).toEqual(straight.choices);
  await second.close();
  await rm(dataDir, { recursive: true, force: true });
}, 60_000);
