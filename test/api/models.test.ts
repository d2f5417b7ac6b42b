/** Teachers and students through the front door: registering, reading, changing, deleting, and what using them needs. */
import { cp, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { registerFound } from "../../src/api/models/found.ts";
import type { Database } from "../../src/db/database.ts";
import { deferred } from "../../src/deferred.ts";
import { fail } from "../../src/errors.ts";
import { openTestDatabase } from "../db/databases.ts";
import {
  type Answer,
  createModelsFixture,
  type ModelsFixture,
  type ModelsOptions,
  modelsDirectory,
  removeDirectory,
} from "./models-fixture.ts";

let database: Database;
let directory: string;
let fixture: ModelsFixture;

beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.close());
beforeEach(async () => {
  directory = await modelsDirectory({ base: "llama", other: "qwen2" });
  use();
});
afterEach(async () => {
  for (const id of await names()) await fixture.service.remove((await rolesOf(id))[0] ?? "teacher", id);
  await fixture.close();
  await removeDirectory(directory);
});

function use(more: Partial<ModelsOptions> = {}): void {
  fixture = createModelsFixture({ database, directory, ...more });
}

const names = async () => (await fixture.service.list()).map(({ id }) => id);
const rolesOf = async (id: string) => (await fixture.service.overview()).find((m) => m.id === id)?.roles ?? [];
const call = (method: string, route: string, body?: object) => fixture.call(method, route, body);
let next = 0;
/** Ids are never used twice: a deleted one goes on with its versions. */
const newId = (): string => `m${++next}`;

async function register(role: "teacher" | "student", body: object, status = 201): Promise<Answer> {
  const answer = await call("POST", `/v1/${role}s`, body);
  expect(answer.status, JSON.stringify(answer.body)).toBe(status);
  return answer.body;
}

const found = (log = pino({ level: "silent" })) =>
  registerFound({ models: fixture.service, modelsDirs: [directory], log });

test.each(["q8", "q4", "q8_0", "q4_0"])("weights at %s", async (precision) => {
  const { id } = await register("teacher", { id: newId(), model: "base", precision });
  expect((await call("GET", `/v1/teachers/${id}`)).body).toMatchObject({ status: "unloaded", precision });
});

const MIB = 2 ** 20;
/** A tiny model takes 64 MiB of overhead beside its weights: fp32 needs 195 MiB then, q8 129 MiB. */
test.each([
  ["fp32", "base", 200],
  ["q8", "base", 150],
  ["q4", "base", 100],
  ["q8", "gemma", 100],
])("auto is %s for %s with %d MiB for models", async (precision, model, mib) => {
  await cp(path.join(import.meta.dirname, "../golden/models/gemma3"), path.join(directory, "gemma"), {
    recursive: true,
  });
  use({ budgetBytes: mib * MIB });
  const { id } = await register("teacher", { id: newId(), model });
  expect((await call("GET", `/v1/teachers/${id}`)).body).toMatchObject({ precision });
  const held = await fixture.registry.hold(id);
  expect(fixture.placement.loaded()).toMatchObject([{ precision }]);
  held.release();
  // The other role joins with what auto stands for, and with nothing else; the same role must say the same.
  await register("student", { id, model, precision: precision === "q4" ? "q8" : "q4" }, 409);
  await register("student", { id, model, precision });
  await register("student", { id, model, precision }, 200);
  await register("student", { id, model }, 409);
  await register("teacher", { id, model, precision }, 409);
});

test("auto follows the type of a GGUF file; what it is shows when the file is converted", async () => {
  const done = deferred<void>();
  const config = path.join(directory, "base", "config.json");
  await writeFile(
    config,
    JSON.stringify({ ...JSON.parse(await readFile(config, "utf8")), preceptor_gguf_type: "Q4_0" }),
  );
  use({ budgetBytes: 150 * MIB, materialiseGguf: () => done.promise.then(() => path.join(directory, "base")) });
  await writeFile(path.join(directory, "a.gguf"), "GGUF");
  const id = newId();
  expect(await register("teacher", { id, model: "a.gguf" })).toMatchObject({ status: "loading", precision: "auto" });
  // Another model is refused at once; whether this is the same one, the file says.
  await register("student", { id, model: "a.gguf", precision: "q4_0", context_length: 99 }, 409);
  const [joining, refused] = ["q4_0", "q8"].map((precision) =>
    call("POST", "/v1/students", { id, model: "a.gguf", precision }),
  );
  done.resolve();
  expect((await refused)?.status).toBe(409);
  expect(await joining).toMatchObject({ status: 201, body: { precision: "q4_0", object: "student" } });
  expect((await call("GET", `/v1/teachers/${id}`)).body).toMatchObject({ status: "unloaded", precision: "q4_0" });
}, 15_000);

test("a new teacher with every default filled in, and the same again is 200", async () => {
  const id = newId();
  const made = await register("teacher", { id, model: "base", metadata: { course: "sums" } });
  expect(made).toMatchObject({
    id,
    object: "teacher",
    version: 1,
    status: "unloaded",
    model: "base",
    adapter: null,
    format: "stratos",
    precision: "fp32",
    device: "cpu",
    context_length: 4096,
    parameters: 143_808,
    weights_hash: expect.stringMatching(/^sha256:/),
    adapter_hash: null,
    tokenizer_hash: "sha256:fake",
    pinned: false,
    metadata: { course: "sums" },
  });
  expect(Object.keys(made.capabilities)).toEqual(
    expect.arrayContaining(["sample", "logprobs", "temperature_scoring", "topk", "train"]),
  );
  expect(made).not.toHaveProperty("error");
  expect(fixture.opened).toEqual([]);
  const body = { id, model: "base", metadata: { course: "sums" } };
  expect(await register("teacher", body, 200)).toEqual(made);
  // Another name for the same place is the same model.
  await register("teacher", { ...body, model: path.join(directory, "base") }, 200);
  expect((await call("GET", `/v1/teachers/${id}`)).body).toEqual(made);
});

test("the same id with another body is a permanent 409 that names what differs", async () => {
  const id = newId();
  await register("teacher", { id, model: "base" });
  const refused = await call("POST", "/v1/teachers", { id, model: "other", context_length: 999 });
  expect(refused.status).toBe(409);
  expect(refused.headers.get("x-should-retry")).toBe("false");
  expect(refused.body.error).toMatchObject({ code: "model_exists", param: "id", type: "conflict_error" });
  expect(refused.body.error.message).toMatch(/model.*context_length|context_length.*model/);
});

test("an id takes its second role with the same shared settings and its own format", async () => {
  const id = newId();
  await register("teacher", { id, model: "base", metadata: { a: "1" } });
  expect((await call("GET", `/v1/students/${id}`)).body.error).toMatchObject({ code: "model_not_found" });
  const student = await register("student", { id, model: "base", format: "r1", precision: "fp32", pinned: true });
  expect(student).toMatchObject({ object: "student", version: 1, format: "r1", pinned: true, metadata: { a: "1" } });
  expect((await call("GET", `/v1/teachers/${id}`)).body).toMatchObject({ format: "stratos", pinned: true });
  await register("student", { id, model: "base", format: "r1", precision: "fp32", pinned: true }, 200);
  const third = newId();
  await register("teacher", { id: third, model: "base" });
  await register("student", { id: third, model: "other" }, 409);
});

test.each<[string, object, string, string]>([
  ["an unknown field", { model: "base", modle: "x" }, "unknown_parameter", "modle"],
  ["an id with a slash", { id: "a/b", model: "base" }, "invalid_value", "id"],
  ["a device that is not here", { model: "base", device: "cuda:0" }, "unsupported_by_backend", "device"],
  ["a device of no kind", { model: "base", device: "tpu" }, "invalid_value", "device"],
  ["a precision of no kind", { model: "base", precision: "q2" }, "invalid_value", "precision"],
  ["another", { model: "base", precision: "q4_1" }, "invalid_value", "precision"],
  ["nothing there", { model: "missing" }, "model_source_not_found", "model"],
  ["outside the directories", { model: "/etc" }, "model_source_not_allowed", "model"],
  ["a link that leads outside", { model: "escape" }, "model_source_not_allowed", "model"],
  ["an engine that is not built", { model: "tinker+http://host:1#m" }, "unsupported_by_backend", "model"],
  ["a server that is not allowed", { model: "openai+http://host:1/v1#m" }, "model_source_not_allowed", "model"],
  ["a tokenizer for files", { model: "base", tokenizer: "other" }, "invalid_value", "tokenizer"],
  ["a temperature for files", { model: "base", tempered: 0.7 }, "invalid_value", "tempered"],
  ["a precision for a server", { model: "openai+http://host:1/v1#m", precision: "q8" }, "invalid_value", "precision"],
  ["a device for a server", { model: "openai+http://host:1/v1#m", device: "cpu" }, "invalid_value", "device"],
  ["an adapter that is none", { model: "base", adapter: "other" }, "invalid_adapter", "adapter"],
  ["an adapter of another model", { model: "base", adapter: "other/adapter" }, "invalid_adapter", "adapter"],
  ["a credential for files", { model: "base", credential: "hub" }, "invalid_value", "credential"],
  [
    "a format without its question",
    { model: "base", format: { prefix: "", close: "<end>", user: "Go." } },
    "invalid_value",
    "format.user",
  ],
])("%s is refused and nothing is kept", async (_, body, code, param) => {
  await symlink("/etc", path.join(directory, "escape"));
  const id = newId();
  const { error } = await register("teacher", { id, ...body }, 400);
  expect(error).toMatchObject({ code, param });
  expect((await call("GET", `/v1/teachers/${id}`)).status).toBe(404);
});

test("versions: an adapter makes a new one, old ones stay, and names are read strictly", async () => {
  const id = newId();
  await register("teacher", { id, model: "base" });
  const patched = (await call("PATCH", `/v1/teachers/${id}`, { adapter: "base/adapter" })).body;
  expect(patched).toMatchObject({ version: 2, adapter: "base/adapter", adapter_hash: expect.any(String) });
  // The same adapter again is no change.
  expect((await call("PATCH", `/v1/teachers/${id}`, { adapter: "base/adapter" })).body.version).toBe(2);
  expect((await call("GET", `/v1/teachers/${id}@1`)).body).toMatchObject({ version: 1, adapter: null });
  expect((await call("GET", `/v1/teachers/${id}@latest`)).body.version).toBe(2);
  expect((await call("PATCH", `/v1/teachers/${id}`, { adapter: null })).body).toMatchObject({ version: 3 });
  for (const wrong of ["9", "0", "-1", "1@2", "x", ""]) {
    const { status, body } = await call("GET", `/v1/teachers/${id}@${wrong}`);
    expect(status, wrong).toBe(404);
    expect(body.error.message).toContain("current one is 3");
  }
});

test("a change that is refused changes nothing", async () => {
  const id = newId();
  await register("teacher", { id, model: "base", metadata: { a: "1" } });
  const refused = await call("PATCH", `/v1/teachers/${id}`, { metadata: { a: "2" }, adapter: "missing" });
  expect(refused.status).toBe(400);
  expect(refused.body.error).toMatchObject({ code: "model_source_not_found", param: "adapter" });
  expect((await call("GET", `/v1/teachers/${id}`)).body).toMatchObject({ version: 1, metadata: { a: "1" } });
  expect((await call("PATCH", `/v1/teachers/${id}`, { metadata: {} })).body.metadata).toEqual({});
  expect((await call("PATCH", `/v1/teachers/${newId()}`, { pinned: true })).status).toBe(404);
});

test("lists: a page at a time, one role each", async () => {
  const ids = [newId(), newId(), newId()];
  for (const id of ids) await register("student", { id, model: "base" });
  await register("teacher", { id: newId(), model: "base" });
  const first = (await call("GET", "/v1/students?limit=2")).body;
  expect(first).toMatchObject({ object: "list", first_id: ids[2], last_id: ids[1], has_more: true });
  const rest = (await call("GET", `/v1/students?limit=2&after=${first.last_id}`)).body;
  expect(rest.data.map((m: Answer) => m.id)).toEqual([ids[0]]);
  expect(rest.has_more).toBe(false);
  expect((await call("GET", "/v1/students?after=nobody")).body.error).toMatchObject({ param: "after" });
});

test("after a restart a list of many reads headers once per source and loads no tokenizer", async () => {
  for (let i = 0; i < 30; i++) await register("teacher", { id: newId(), model: i % 2 ? "base" : "other" });
  await fixture.close();
  use();
  const began = performance.now();
  const { data } = (await call("GET", "/v1/teachers?limit=100")).body;
  expect(performance.now() - began).toBeLessThan(3_000);
  expect(data).toHaveLength(30);
  for (const model of data) {
    expect(model).toMatchObject({ status: "unloaded", parameters: expect.any(Number), tokenizer_hash: "sha256:fake" });
  }
  expect(fixture.tokenizers).toEqual([]);
});

test("deleting hides both roles; the id goes on with the next version and files are read anew", async () => {
  const id = newId();
  await register("teacher", { id, model: "base" });
  await register("student", { id, model: "base" });
  const before = (await call("GET", `/v1/teachers/${id}`)).body;
  expect((await call("DELETE", `/v1/students/${id}`)).body).toEqual({ id, object: "student", deleted: true });
  for (const role of ["teachers", "students"]) expect((await call("GET", `/v1/${role}/${id}`)).status).toBe(404);
  expect((await call("DELETE", `/v1/teachers/${id}`)).status).toBe(404);
  await rm(path.join(directory, "base"), { recursive: true });
  await cp(path.join(directory, "other"), path.join(directory, "base"), { recursive: true });
  const again = await register("teacher", { id, model: "base" });
  expect(again.version).toBe(2);
  expect(again.weights_hash).not.toBe(before.weights_hash);
  expect((await call("GET", `/v1/teachers/${id}@1`)).status).toBe(404);
});

test("a model is loaded on first use, shown as ready, held while used, and leaves when it is deleted", async () => {
  const id = newId();
  await register("teacher", { id, model: "base", context_length: 100 });
  const held = await fixture.registry.hold(id, { role: "teacher" });
  expect(held).toMatchObject({ id, version: 1, contextLength: 100, format: "stratos", adapter: null });
  expect(held.eosIds.length).toBeGreaterThan(0);
  expect(await call("GET", `/v1/teachers/${id}`)).toMatchObject({
    body: { status: "ready", capabilities: { batch_invariant: true } },
  });
  await call("DELETE", `/v1/teachers/${id}`);
  expect(fixture.placement.loaded()).toMatchObject([{ held: 1 }]);
  held.release();
  await expect.poll(() => fixture.placement.loaded()).toEqual([]);
  await expect(fixture.registry.hold(id, { param: "teacher" })).rejects.toMatchObject({
    code: "model_not_found",
    param: "teacher",
  });
});

test("deleting one of two ids with the same files leaves the other one loaded", async () => {
  const [a, b] = [newId(), newId()];
  await register("teacher", { id: a, model: "base" });
  await register("teacher", { id: b, model: "base" });
  (await fixture.registry.hold(a)).release();
  await call("DELETE", `/v1/teachers/${a}`);
  expect((await call("GET", `/v1/teachers/${b}`)).body.status).toBe("ready");
  expect(fixture.opened).toEqual(["base"]);
});

test("pinning and unpinning reach a model that is loaded already", async () => {
  use({ budgetBytes: 100 * 2 ** 20 });
  const [a, b] = [newId(), newId()];
  await register("teacher", { id: a, model: "base" });
  await register("teacher", { id: b, model: "other" });
  (await fixture.registry.hold(a)).release();
  await call("PATCH", `/v1/teachers/${a}`, { pinned: true });
  await expect(fixture.registry.hold(b)).rejects.toMatchObject({ code: "out_of_memory" });
  await call("PATCH", `/v1/teachers/${a}`, { pinned: false });
  (await fixture.registry.hold(b)).release();
  expect(fixture.opened).toEqual(["base", "other"]);
});

test("a failed load shows on the resource until the next success", async () => {
  let broken = true;
  use({
    onOpen() {
      if (broken) throw fail("engine_failed", "the weights could not be loaded");
    },
  });
  const id = newId();
  await register("teacher", { id, model: "base" });
  await expect(fixture.registry.hold(id)).rejects.toMatchObject({ code: "engine_failed" });
  expect((await call("GET", `/v1/teachers/${id}`)).body).toMatchObject({
    status: "failed",
    error: { code: "engine_failed", message: "the weights could not be loaded" },
  });
  broken = false;
  (await fixture.registry.hold(id)).release();
  const { body } = await call("GET", `/v1/teachers/${id}`);
  expect(body.status).toBe("ready");
  expect(body).not.toHaveProperty("error");
});

test("a directory that goes away shows as failed, and works again when it is back", async () => {
  const id = newId();
  await register("teacher", { id, model: "base" });
  await fixture.close();
  use();
  await rename(path.join(directory, "base"), path.join(directory, "aside"));
  expect((await call("GET", `/v1/teachers/${id}`)).body).toMatchObject({
    status: "failed",
    error: { code: "model_source_not_found" },
    parameters: null,
    weights_hash: expect.any(String),
  });
  await expect(fixture.registry.hold(id)).rejects.toMatchObject({ code: "model_source_not_found" });
  await rename(path.join(directory, "aside"), path.join(directory, "base"));
  (await fixture.registry.hold(id)).release();
  expect((await call("GET", `/v1/teachers/${id}`)).body.status).toBe("ready");
});

test("a conversion: registering answers loading, a request waits for it, two run at once", async () => {
  const done = deferred<void>();
  use({ materialiseGguf: () => done.promise.then(() => path.join(directory, "base")) });
  for (const name of ["a", "b", "c"]) await writeFile(path.join(directory, `${name}.gguf`), "GGUF");
  const id = newId();
  const answers = await Promise.all([
    register("teacher", { id, model: "a.gguf" }),
    register("teacher", { id: newId(), model: "b.gguf" }),
    register("teacher", { id: newId(), model: "c.gguf" }),
  ]);
  for (const answer of answers) expect(answer).toMatchObject({ status: "loading", parameters: null });
  expect(fixture.converted).toHaveLength(2);
  const holding = fixture.registry.hold(id);
  const controller = new AbortController();
  const leaving = fixture.registry.hold(id, { signal: controller.signal });
  controller.abort();
  await expect(leaving).rejects.toMatchObject({ code: "cancelled" });
  done.resolve();
  (await holding).release();
  expect((await call("GET", `/v1/teachers/${id}`)).body).toMatchObject({ status: "ready", parameters: 143_808 });
  await expect.poll(() => fixture.converted).toHaveLength(3);
}, 15_000);

test("a download: requests are told to come back, one download serves all, and its failure shows", async () => {
  const done = deferred<string>();
  let downloads = 0;
  use({
    resolveHub() {
      downloads++;
      return done.promise;
    },
  });
  const id = newId();
  const [made, refused] = await Promise.all([
    register("teacher", { id, model: "hf:org/name" }),
    register("teacher", { id: newId(), model: "hf:org/name" }),
  ]);
  expect([made.status, refused.status]).toEqual(["loading", "loading"]);
  await expect(fixture.registry.hold(id)).rejects.toMatchObject({
    code: "model_loading",
    retryAfterSeconds: expect.any(Number),
    message: expect.stringContaining("downloaded"),
  });
  expect(downloads).toBe(1);
  done.reject(fail("hub_error", "the hub said no"));
  await expect
    .poll(async () => (await call("GET", `/v1/teachers/${id}`)).body)
    .toMatchObject({ status: "failed", error: { code: "hub_error" } });
}, 15_000);

test("what lies in the models directory is registered by itself; a caller's registration takes its place", async () => {
  await found();
  const listed = (await fixture.service.overview()).map(({ id, roles }) => [id, roles]);
  expect(listed.sort()).toEqual([
    ["base", ["teacher", "student"]],
    ["other", ["teacher", "student"]],
  ]);
  // The same settings: it is simply the caller's now.
  expect(await register("teacher", { id: "base", model: "base" }, 200)).toMatchObject({ version: 1 });
  await register("teacher", { id: "base", model: "base", context_length: 99 }, 409);
  // The other role is still the server's find: with another format it becomes a new version, the teacher stays.
  expect(await register("student", { id: "base", model: "base", format: "r1" })).toMatchObject({ version: 2 });
  expect((await call("GET", "/v1/teachers/base")).body).toMatchObject({ version: 2, format: "stratos" });
  await register("student", { id: "base", model: "base" }, 409);
  await register("teacher", { id: "base", model: "base" }, 200);
  // Other settings altogether: both roles go along until the caller says otherwise.
  expect(await register("student", { id: "other", model: "other", precision: "q8" })).toMatchObject({
    version: 2,
    precision: "q8",
  });
  expect((await call("GET", "/v1/teachers/other")).body).toMatchObject({ version: 2, precision: "q8" });
  // A registration that is refused leaves the find in place.
  await register("teacher", { id: "other", model: "missing" }, 409);
});

test("a found model that a caller deleted stays deleted, and a broken one is named and skipped", async () => {
  await writeFile(path.join(directory, "broken.gguf"), "no");
  await cp(path.join(directory, "base"), path.join(directory, "fresh"), { recursive: true });
  await cp(path.join(directory, "base"), path.join(directory, "odd"), { recursive: true });
  await writeFile(path.join(directory, "odd", "config.json"), "{");
  const lines: string[] = [];
  await found(pino({ level: "warn" }, { write: (line: string) => void lines.push(line) }));
  expect(await names()).toContain("fresh");
  expect(lines.map((line) => JSON.parse(line).id).sort()).toEqual(["broken", "odd"]);
  await call("DELETE", "/v1/teachers/fresh");
  await found();
  expect(await names()).not.toContain("fresh");
  // By hand it may come back.
  expect(await register("teacher", { id: "fresh", model: "fresh" })).toMatchObject({ version: 2 });
});
