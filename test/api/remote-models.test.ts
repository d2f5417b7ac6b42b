/** Remote models through the front door: what registering, changing and deleting them does to the connections behind them. */
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import type { Database } from "../../src/db/database.ts";
import { openTestDatabase } from "../db/databases.ts";
import { type FakeOptions, type FakeVllm, startFake } from "../engine/openai/fake-vllm.ts";
import { eventually } from "../engine/openai/fixture.ts";
import { createModelsFixture, type ModelsFixture, modelsDirectory, removeDirectory } from "./models-fixture.ts";

let database: Database;
let directory: string;
beforeAll(async () => {
  database = await openTestDatabase();
  directory = await modelsDirectory({ base: "llama" });
});
afterAll(async () => {
  await database.close();
  await removeDirectory(directory);
});

let ids = 0;
const newId = (): string => `far${++ids}`;

async function setUp(options: FakeOptions = {}): Promise<{ server: FakeVllm; fixture: ModelsFixture; far: object }> {
  const server = await startFake({ toy: { vocabSize: 512 }, lacks: ["tokenize"], ...options });
  const credentials = { one: "key", two: "key" };
  const fixture = createModelsFixture({ database, directory, allowedHosts: ["127.0.0.1"], credentials });
  onTestFinished(async () => {
    await fixture.close();
    await server.close();
  });
  return { server, fixture, far: { model: `openai+${server.url}#toy`, tokenizer: "base" } };
}

test("a server that falls silent while it is being reached does not hold up the end", async () => {
  const { server, fixture, far } = await setUp();
  server.misbehave({ kind: "hang" });
  const registering = fixture.call("POST", "/v1/teachers", { id: newId(), ...far });
  await eventually(() => server.completions().length === 1);
  const started = performance.now();
  await fixture.preparation.close();
  expect(performance.now() - started).toBeLessThan(3_000);
  const { status, body } = await registering;
  expect(status).toBe(500);
  expect(body.error).toMatchObject({ code: "engine_failed", message: expect.stringContaining("server stops") });
});

test("a connection whose model was deleted lasts as long as a request holds it, but not beyond the end", async () => {
  const { fixture, far } = await setUp();
  const id = newId();
  await fixture.call("POST", "/v1/teachers", { id, ...far });
  const held = await fixture.registry.hold(id);
  const score = () => held.engine.logprobs({ temperature: 1, sequences: [{ ids: Int32Array.of(3, 1, 4) }] });
  await fixture.call("DELETE", `/v1/teachers/${id}`);
  expect((await score())[0]!.logprobs).toHaveLength(2);
  expect(fixture.preparation.remotes()).toHaveLength(1);
  await fixture.preparation.close();
  await expect(score()).rejects.toMatchObject({ code: "engine_failed" });
  held.release();
});

test("deleting a model ends its connection, whatever else is registered of the same server", async () => {
  const { fixture, far } = await setUp({ apiKey: "key" });
  const [one, two, also] = [newId(), newId(), newId()];
  await fixture.call("POST", "/v1/teachers", { id: one, ...far, credential: "one" });
  await fixture.call("POST", "/v1/teachers", { id: two, ...far, credential: "two" });
  await fixture.call("POST", "/v1/teachers", { id: also, ...far, credential: "two" });
  expect(fixture.preparation.remotes()).toHaveLength(2);
  await fixture.call("DELETE", `/v1/teachers/${one}`);
  await eventually(() => fixture.preparation.remotes().length === 1);
  await fixture.call("DELETE", `/v1/teachers/${two}`);
  // The same connection serves another id.
  const held = await fixture.registry.hold(also);
  expect(await held.engine.logprobs({ temperature: 1, sequences: [{ ids: Int32Array.of(3, 1) }] })).toHaveLength(1);
  held.release();
  await fixture.call("DELETE", `/v1/teachers/${also}`);
  await eventually(() => fixture.preparation.remotes().length === 0);
});

test("what takes no memory here cannot be pinned, when it is registered or later", async () => {
  const { fixture, far } = await setUp();
  const id = newId();
  await fixture.call("POST", "/v1/teachers", { id, ...far });
  const refusal = { status: 400, body: { error: { code: "invalid_value", param: "pinned" } } };
  expect(await fixture.call("PATCH", `/v1/teachers/${id}`, { pinned: true, metadata: { a: "b" } })).toMatchObject(
    refusal,
  );
  expect(await fixture.call("POST", "/v1/teachers", { id: newId(), ...far, pinned: true })).toMatchObject(refusal);
  expect((await fixture.call("GET", `/v1/teachers/${id}`)).body).toMatchObject({ pinned: false, metadata: {} });
  expect(await fixture.call("PATCH", `/v1/teachers/${id}`, { pinned: false })).toMatchObject({ status: 200 });
});

test("registering it again asks the server again what it can do", async () => {
  const { server, fixture, far } = await setUp();
  const [id, other] = [newId(), newId()];
  const able = async (body: object) =>
    (await fixture.call("POST", "/v1/teachers", { ...far, ...body })).body.capabilities.adapters;
  expect(await able({ id })).toBe(false);
  server.settings.lora = true;
  expect(await able({ id: other })).toBe(true);
  server.settings.lora = false;
  expect(await able({ id })).toBe(false);
  expect(fixture.preparation.remotes()).toHaveLength(1);
  // One that is not there at the moment stays registered.
  await server.kill();
  expect(await fixture.call("POST", "/v1/teachers", { id, ...far })).toMatchObject({ status: 200 });
  await server.revive();
  expect(await fixture.call("POST", "/v1/teachers", { id, ...far })).toMatchObject({
    status: 200,
    body: { status: "ready" },
  });
});
