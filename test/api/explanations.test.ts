import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { explanationRoutes } from "../../src/api/explanations/routes.ts";
import { createExplanationSchema } from "../../src/api/explanations/schemas.ts";
import { createExplanationService, type ExplanationService } from "../../src/api/explanations/service.ts";
import type { Database } from "../../src/db/database.ts";
import { createExplanationStore } from "../../src/db/explanation-store.ts";
import { fail } from "../../src/errors.ts";
import { createApp } from "../../src/http/app.ts";
import { openTestDatabase } from "../db/databases.ts";
import { createFakeRegistry, type FakeRegistry } from "./fake-registry.ts";
import { createFakeEngine, createFakeText, encodePlain, type FakeEngine } from "./fakes.ts";

const CLOSE = "<|end_of_explanation|>";
let database: Database;
let service: ExplanationService;
let registry: FakeRegistry;
let teacher: FakeEngine;
let app: ReturnType<typeof createApp>;
const errors: unknown[] = [];

beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(async () => {
  await database.close();
});
beforeEach(() => {
  use({});
});

/** A teacher that writes a sentence, its closing tag and, if asked further, more. */
function use(options: { delayMs?: number; texts?: string[]; failAfterTokens?: number; contextLength?: number }): void {
  const texts = options.texts ?? [`Étape: add the numbers.${CLOSE} never shown`, `So 5 it is.${CLOSE}`];
  teacher = createFakeEngine({
    contextLength: options.contextLength ?? 8192,
    tokenDelayMs: options.delayMs ?? 0,
    script: (_, index) => encodePlain(texts[index % texts.length] as string),
    ...(options.failAfterTokens === undefined ? {} : { failAfterTokens: options.failAfterTokens }),
  });
  registry = createFakeRegistry({
    teacher: { engine: teacher },
    student: { engine: createFakeEngine({ contextLength: 8192 }) },
  });
  service = newService();
  app = createApp({ routes: [explanationRoutes({ explanations: service })], authenticate: null, strictJson: true });
}

function newService(): ExplanationService {
  return createExplanationService({
    registry,
    store: createExplanationStore(database.db),
    now: () => new Date(),
    random: Math.random,
    log: { error: (details) => errors.push(details) },
  });
}

// biome-ignore lint/suspicious/noExplicitAny: tests look into whatever came back
type Json = any;

async function call(method: string, path: string, body?: object): Promise<{ status: number; body: Json }> {
  const response = await app.request(`http://127.0.0.1${path}`, {
    method,
    headers: { "content-type": "application/json", host: "127.0.0.1" },
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
  return { status: response.status, body: await response.json() };
}
const create = (more: object = {}) =>
  call("POST", "/v1/explanations", { teacher: "teacher", question: "What is 2+3?", solution: "5", ...more });

async function events(more: object): Promise<Json[]> {
  const response = await app.request("http://127.0.0.1/v1/explanations", {
    method: "POST",
    headers: { "content-type": "application/json", host: "127.0.0.1" },
    body: JSON.stringify({ teacher: "teacher", question: "2+3?", solution: "5", stream: true, ...more }),
  });
  expect(response.headers.get("content-type")).toContain("text/event-stream");
  return (await response.text())
    .split("\n\n")
    .flatMap((block) => /^data: (.*)$/m.exec(block)?.[1] ?? [])
    .map((data) => JSON.parse(data));
}

test("the text up to the closing tag, what made it, and the row that is kept", async () => {
  const { status, body } = await create({ metadata: { course: "sums" }, include: ["prompt", "tokens"], seed: 7 });
  expect(status).toBe(200);
  expect(body).toMatchObject({
    object: "explanation",
    status: "completed",
    teacher: { id: "teacher", version: 1 },
    choices: [{ index: 0, explanation: "Étape: add the numbers.", finish_reason: "stop" }],
    sampling: { n: 1, temperature: 0.7, top_p: 1, top_k: 0, seed: 7 },
    metadata: { course: "sums" },
  });
  expect(body.prompt).toContain("<|begin_of_solution|>\n\n5\n\n<|end_of_solution|>");
  expect(body.choices[0].tokens.map((t: Json) => t.id)).toHaveLength(body.usage.completion_tokens);
  expect(body.id).toMatch(/^expl_/);
  expect((await call("GET", `/v1/explanations/${body.id}`)).body).toEqual(body);
  expect(registry.held()).toBe(0);
});

test("a stream tells the same story in order", async () => {
  const seen = await events({ n: 2 });
  expect(seen[0].type).toBe("explanation.created");
  expect(seen.map((e) => e.sequence_number)).toEqual(seen.map((_, i) => i));
  const last = seen.at(-1);
  expect(last.type).toBe("explanation.completed");
  for (const index of [0, 1]) {
    const text = seen
      .filter((e) => e.type === "explanation.delta" && e.index === index)
      .map((e) => e.delta)
      .join("");
    expect(text).toBe(last.explanation.choices[index].explanation);
    expect(text).not.toContain("<");
    expect(seen.filter((e) => e.type === "explanation.choice" && e.index === index)).toHaveLength(1);
  }
  for (const e of seen) if (e.type === "explanation.delta") expect(e.delta).not.toContain("\ufffd");
});

test("ranking scores every choice with the student", async () => {
  const { body } = await create({ n: 2, rank_by: { student: "student" } });
  const rewards = body.choices.map((choice: Json) => choice.score.reward);
  expect(body.best).toBe(rewards.indexOf(Math.max(...rewards)));
  expect(body.choices[0].score).toMatchObject({ warnings: [], format: { ok: true }, temperature: 0.7 });
  expect(body.rank_by).toMatchObject({ student: { id: "student", version: 1 }, metric: "reward" });
  expect(body.usage.scored_tokens).toBeGreaterThan(0);
});

test("an explanation without a closing tag says so", async () => {
  use({ texts: ["no tag at all, on and on"] });
  const cut = await create({ max_tokens: 4, rank_by: { student: "student" } });
  expect(cut.body.choices[0]).toMatchObject({ finish_reason: "length", score: { format: { penalty: -1 } } });
  expect(cut.body.sampling.max_tokens).toBe(4);
  expect((await create()).body.choices[0]).toMatchObject({
    finish_reason: "stop",
    explanation: "no tag at all, on and on",
  });
});

test("a prompt beyond the context is refused with both numbers, and nothing is kept", async () => {
  use({ contextLength: 100 });
  const before = (await call("GET", "/v1/explanations")).body.data.length;
  const { status, body } = await create();
  expect(status).toBe(400);
  expect(body.error.code).toBe("context_length_exceeded");
  expect(body.error.message).toMatch(/\d{3,} tokens.*100/);
  expect((await call("GET", "/v1/explanations")).body.data).toHaveLength(before);
  expect(registry.held()).toBe(0);
});

test("background work is polled, cancelled and listed", async () => {
  use({ delayMs: 20, texts: ["word ".repeat(400)] });
  const { status, body } = await create({ background: true });
  expect(status).toBe(202);
  await sleep(80);
  expect((await call("GET", `/v1/explanations/${body.id}`)).body.status).toBe("in_progress");
  const cancelled = (await call("POST", `/v1/explanations/${body.id}/cancel`)).body;
  expect(cancelled).toMatchObject({ status: "cancelled", choices: [{ finish_reason: "cancelled" }] });
  expect("word ".repeat(400)).toContain(cancelled.choices[0].explanation);
  expect(cancelled.choices[0].explanation).not.toBe("");
  expect(teacher.load().active).toBe(0);
  const listed = (await call("GET", "/v1/explanations?status=cancelled&limit=1")).body;
  expect(listed).toMatchObject({ object: "list", first_id: body.id, last_id: body.id });
  expect((await call("DELETE", `/v1/explanations/${body.id}`)).body).toMatchObject({ deleted: true });
  expect((await call("GET", `/v1/explanations/${body.id}`)).status).toBe(404);
});

test("a client that leaves stops the work and the row says cancelled", async () => {
  use({ delayMs: 10, texts: ["word ".repeat(400)] });
  const controller = new AbortController();
  const request = app.request("http://127.0.0.1/v1/explanations", {
    method: "POST",
    headers: { "content-type": "application/json", host: "127.0.0.1" },
    body: JSON.stringify({ teacher: "teacher", question: "leaving?", solution: "5", stream: true }),
    signal: controller.signal,
  });
  const response = await request;
  await response.body?.getReader().read();
  controller.abort();
  await expect.poll(() => teacher.load().active, { timeout: 1000 }).toBe(0);
  await expect.poll(() => registry.held()).toBe(0);
  const { data } = (await call("GET", "/v1/explanations?limit=1")).body;
  expect(data[0]).toMatchObject({ question: "leaving?", status: "cancelled" });
});

test("an engine that fails leaves a failed row and an error for the caller", async () => {
  use({ failAfterTokens: 3 });
  const { status, body } = await create({ question: "failing?" });
  expect(status).toBe(500);
  expect(body.error.code).toBe("engine_failed");
  const { data } = (await call("GET", "/v1/explanations?limit=1")).body;
  expect(data[0]).toMatchObject({ question: "failing?", status: "failed", error: { code: "engine_failed" } });
  const stream = await events({ failing: undefined });
  expect(stream.at(-1)).toMatchObject({ type: "error", error: { code: "engine_failed" } });
  expect(registry.held()).toBe(0);
});

test("what a stop interrupted: background work is taken up with its seed, the rest has failed", async () => {
  use({ delayMs: 15, texts: [`${"word ".repeat(20)}${CLOSE}`] });
  const background = (await create({ background: true, question: "taken up?", seed: 11 })).body;
  const waiting = create({ question: "lost?" });
  await sleep(60);
  await service.close();
  await waiting;
  // A kill leaves rows in progress; closing does that for background work, and this one stands for the other kind.
  const store = createExplanationStore(database.db);
  const lost = await store.insert({
    id: "expl_lost",
    status: "in_progress",
    teacherId: "teacher",
    teacherVersion: 1,
    question: "lost?",
    solution: "5",
    sampling: { n: 1, temperature: 1, top_p: 1, top_k: 0, max_tokens: 5, seed: 1, background: false, tokens: false },
  });
  expect((await store.find(background.id))?.status).toBe("in_progress");
  service = newService();
  await service.settleInterrupted({ exclusive: true });
  expect(await service.get(lost.id)).toMatchObject({ status: "failed", error: { code: "interrupted" } });
  await expect.poll(async () => (await service.get(background.id)).status, { timeout: 5000 }).toBe("completed");
  expect(await service.get(background.id)).toMatchObject({
    sampling: { seed: 11 },
    choices: [{ explanation: "word ".repeat(20), finish_reason: "stop" }],
  });
});

test("with store: false nothing is kept; contradictions are refused", async () => {
  const { body } = await create({ store: false });
  expect(body.status).toBe("completed");
  expect((await call("GET", `/v1/explanations/${body.id}`)).status).toBe(404);
  expect((await create({ store: false, background: true })).body.error.param).toBe("store");
  expect((await create({ stream: true, background: true })).body.error.param).toBe("background");
  expect((await create({ temprature: 1 })).body.error).toMatchObject({ code: "unknown_parameter" });
  expect((await create({ teacher: "nobody" })).body.error).toMatchObject({ code: "model_not_found", param: "teacher" });
});

test("work in the background answers before its models are there, comes back when told to, and can be cancelled", async () => {
  const tries: string[] = [];
  const hold = registry.hold.bind(registry);
  let loading = true;
  registry.hold = async (name, options) => {
    tries.push(name);
    if (loading) throw fail("model_loading", "not yet", { retryAfterSeconds: 0.01 });
    return hold(name, options);
  };
  const waiting = (await create({ background: true, rank_by: { student: "student" } })).body;
  expect(waiting).toMatchObject({ status: "queued", choices: [], rank_by: { metric: "reward" } });
  const hopeless = (await create({ background: true })).body;
  await expect.poll(() => tries.length).toBeGreaterThan(4);
  expect((await call("POST", `/v1/explanations/${hopeless.id}/cancel`)).body.status).toBe("cancelled");
  loading = false;
  await expect.poll(async () => (await service.get(waiting.id)).status).toBe("completed");
  expect((await service.get(hopeless.id)).status).toBe("cancelled");
  expect(await service.get(waiting.id)).toMatchObject({ best: 0, choices: [{ score: { object: "score" } }] });
  expect(tries).toContain("teacher@1");
  expect(registry.held()).toBe(0);
});

test("background work that cannot begin has failed with the reason; closing leaves it for the next start", async () => {
  registry.hold = () => Promise.reject(fail("out_of_memory", "it does not fit"));
  const { id } = (await create({ background: true })).body;
  await expect
    .poll(async () => service.get(id))
    .toMatchObject({ status: "failed", error: { code: "out_of_memory", message: "it does not fit" } });
  registry.hold = (_, options) =>
    new Promise((_resolve, reject) => {
      options?.signal?.addEventListener("abort", () => reject(fail("cancelled", "stopped")));
    });
  const kept = (await create({ background: true })).body;
  await service.close();
  expect((await createExplanationStore(database.db).find(kept.id))?.status).toBe("queued");
  await createExplanationStore(database.db).update(kept.id, { status: "cancelled" });
});

test("a database that fails as background work begins leaves no model held", async () => {
  const store = createExplanationStore(database.db);
  let failing = true;
  service = createExplanationService({
    registry,
    store: {
      ...store,
      update: (id, changes, from) =>
        failing ? Promise.reject(fail("database_unavailable", "away")) : store.update(id, changes, from),
    },
    now: () => new Date(),
    random: Math.random,
    log: { error: (details) => errors.push(details) },
  });
  const request = { teacher: "teacher", question: "away?", solution: "5", background: true };
  errors.length = 0;
  const caller = { client: "me", priority: "interactive", signal: new AbortController().signal } as const;
  const { id } = await service.create(createExplanationSchema.parse(request), caller);
  await expect.poll(() => errors).toMatchObject([{ id }, { id }]);
  expect(registry.held()).toBe(0);
  expect((await store.find(id))?.status).toBe("queued");
  // The next look finds it, as after a restart.
  failing = false;
  await service.settleInterrupted({ exclusive: true });
  await expect.poll(async () => (await store.find(id))?.status).toBe("completed");
});

test("a choice that the student cannot read loses its score only", async () => {
  use({ texts: [`${"long ".repeat(400)}${CLOSE}`, `short${CLOSE}`] });
  registry = createFakeRegistry({
    teacher: { engine: teacher },
    student: { engine: createFakeEngine({ contextLength: 2_600 }) },
  });
  service = newService();
  app = createApp({ routes: [explanationRoutes({ explanations: service })], authenticate: null, strictJson: true });
  const { status, body } = await create({ n: 2, max_tokens: 3000, rank_by: { student: "student" } });
  expect(status).toBe(200);
  expect(body).toMatchObject({ status: "completed", best: 1 });
  expect(body.choices[0]).toMatchObject({
    explanation: "long ".repeat(400),
    score_error: { code: "context_length_exceeded" },
  });
  expect(body.choices[0]).not.toHaveProperty("score");
  expect(body.choices[1]).not.toHaveProperty("score_error");
});

test("a teacher that cannot score texts is ranked by the log-probs it sampled with, and not run twice", async () => {
  // Letters where the tokenizer would take words: the sampled ids are not those of the text.
  const letters = (text: string): number[] => [...Buffer.from(text)];
  const rankedBy = async (capabilities: object, script: (text: string) => number[], more: object = {}) => {
    const texts = [`the teacher adds${CLOSE}`, "no end"];
    teacher = createFakeEngine({
      contextLength: 8192,
      capabilities,
      script: (_, i) => script(texts[i] as string),
    });
    registry = createFakeRegistry({
      teacher: { engine: teacher },
      student: { engine: createFakeEngine({ contextLength: 8192 }) },
    });
    service = newService();
    app = createApp({ routes: [explanationRoutes({ explanations: service })], authenticate: null, strictJson: true });
    return (await create({ n: 2, max_tokens: 100, rank_by: { student: "student" }, ...more })).body;
  };
  const blind = { logprobs: false };
  for (const temperature of [0.7, 0]) {
    const seeing = await rankedBy({}, encodePlain, { temperature });
    expect(teacher.scored).toHaveLength(2);
    const ranked = await rankedBy(blind, encodePlain, { temperature });
    expect(teacher.scored).toEqual([]);
    expect(ranked.best).toBe(seeing.best);
    ranked.choices.forEach(({ score }: Json, i: number) => {
      const other = seeing.choices[i].score;
      expect(score).toMatchObject({ tokens_from: "ids", warnings: [], temperature: other.temperature });
      expect(other.tokens_from).toBe("text");
      expect(score.reward).toBeCloseTo(other.reward, 5);
      expect(score.kl.max).toBeCloseTo(other.kl.max, 5);
    });
  }
  const spelled = await rankedBy(blind, letters);
  expect(spelled.choices[0]).toMatchObject({ explanation: "the teacher adds", score: { tokens_from: "ids" } });
  // Tokens are reported only to those who ask for them.
  expect(spelled.choices[0]).not.toHaveProperty("tokens");
});

test("how familiar a problem is: per choice and altogether, streamed and kept, only where it was asked for", async () => {
  const asked = { n: 2, include: ["familiarity"], rank_by: { student: "student" }, seed: 3 };
  const { body } = await create(asked);
  for (const { score, familiarity } of body.choices) {
    expect(familiarity).toMatchObject({ kl_mean: score.kl.mean, kl_max: score.kl.max });
    expect(familiarity.uplift).toBeCloseTo(score.solution.logprob_mean + familiarity.student_surprise.mean, 10);
  }
  const [a, b] = body.choices.map((choice: Json) => choice.familiarity);
  expect(body.familiarity.kl_tokens).toBe(a.kl_tokens + b.kl_tokens);
  expect(body.familiarity.kl_max).toBe(Math.max(a.kl_max, b.kl_max));
  expect(body.familiarity.teacher_surprise.tokens).toBe(encodePlain("\n\n5\n\n").length);
  expect((await call("GET", `/v1/explanations/${body.id}`)).body).toEqual(body);
  // The problem itself is read once by each model, the choices once each.
  expect(teacher.scored).toHaveLength(3);

  const seen = await events({ ...asked, question: "What is 2+3?" });
  expect(seen.at(-1).explanation.choices).toEqual(body.choices);
  expect(seen.at(-1).explanation.familiarity).toEqual(body.familiarity);

  const alone = (await create({ include: ["familiarity"] })).body;
  expect(alone.familiarity).toEqual({
    teacher_surprise: body.familiarity.teacher_surprise,
    student_surprise: null,
    kl_mean: null,
    kl_max: null,
    kl_tokens: 0,
    uplift: null,
  });
  expect(alone.usage.scored_tokens).toBeGreaterThan(0);
  const silent = (await create({ rank_by: { student: "student" } })).body;
  expect(silent).not.toHaveProperty("familiarity");
  expect(silent.choices[0]).not.toHaveProperty("familiarity");
  expect(Object.keys(silent.sampling)).toEqual(["n", "temperature", "top_p", "top_k", "max_tokens", "seed"]);

  const { id } = (await create({ ...asked, background: true })).body;
  await expect.poll(async () => (await call("GET", `/v1/explanations/${id}`)).body.status).toBe("completed");
  expect((await call("GET", `/v1/explanations/${id}`)).body.familiarity).toEqual(body.familiarity);
});

test("what a student cannot read, or a teacher cannot say, is null and loses nothing else", async () => {
  registry = createFakeRegistry({
    teacher: { engine: teacher },
    student: { engine: createFakeEngine({ contextLength: 300 }) },
  });
  service = newService();
  app = createApp({ routes: [explanationRoutes({ explanations: service })], authenticate: null, strictJson: true });
  const narrow = (await create({ include: ["familiarity"], rank_by: { student: "student" } })).body;
  expect(narrow).toMatchObject({
    status: "completed",
    choices: [{ score_error: { code: "context_length_exceeded" } }],
    familiarity: { teacher_surprise: { tokens: 3 }, student_surprise: null, kl_mean: null, uplift: null },
  });

  use({});
  teacher.capabilities.logprobs = false;
  const blind = (await create({ include: ["familiarity"], rank_by: { student: "student" } })).body;
  expect(blind.familiarity.teacher_surprise).toBeNull();
  expect(blind.familiarity.uplift).not.toBeNull();
  expect(blind.familiarity.kl_mean).toBe(blind.choices[0].score.kl.mean);
});

test("an estimator that cannot work is refused before anything is written", async () => {
  registry = createFakeRegistry({
    teacher: { engine: teacher },
    student: { text: { ...createFakeText(), tokenizerHash: "sha256:other" } },
  });
  service = newService();
  app = createApp({ routes: [explanationRoutes({ explanations: service })], authenticate: null, strictJson: true });
  for (const background of [false, true]) {
    const refused = await create({ background, rank_by: { student: "student", kl: { estimator: "full" } } });
    expect(refused.status).toBe(400);
    expect(refused.body.error).toMatchObject({
      code: "estimator_needs_shared_tokenizer",
      param: "rank_by.kl.estimator",
    });
  }
  expect(teacher.samples).toHaveLength(0);
  expect(registry.held()).toBe(0);
});

test("what was written when a client left or the engine failed is kept", async () => {
  use({ delayMs: 5, texts: ["word ".repeat(400)] });
  const controller = new AbortController();
  const response = await app.request("http://127.0.0.1/v1/explanations", {
    method: "POST",
    headers: { "content-type": "application/json", host: "127.0.0.1" },
    body: JSON.stringify({ teacher: "teacher", question: "kept?", solution: "5", stream: true }),
    signal: controller.signal,
  });
  const reader = response.body?.getReader();
  for (let i = 0; i < 5; i++) await reader?.read();
  controller.abort();
  await expect.poll(() => registry.held()).toBe(0);
  const [left] = (await call("GET", "/v1/explanations?limit=1")).body.data;
  expect(left).toMatchObject({ question: "kept?", status: "cancelled", choices: [{ finish_reason: "cancelled" }] });
  expect(left.choices[0].explanation).not.toBe("");
  expect(left.usage.completion_tokens).toBeGreaterThan(0);
  use({ failAfterTokens: 3 });
  await create({ question: "half?" });
  const [failed] = (await call("GET", "/v1/explanations?limit=1")).body.data;
  expect(failed).toMatchObject({ status: "failed", error: { code: "engine_failed" } });
  expect(failed.choices[0].explanation).not.toBe("");
});

test("where servers share a database, only what nobody has touched for minutes is settled", async () => {
  let at = Date.now() - 10 * 60_000;
  const store = createExplanationStore(database.db, () => new Date(at));
  const row = {
    status: "in_progress",
    teacherId: "teacher",
    teacherVersion: 1,
    question: "shared?",
    solution: "5",
  } as const;
  const sampling = { n: 1, temperature: 1, top_p: 1, top_k: 0, max_tokens: 50, seed: 1, tokens: false };
  const insert = (id: string, background: boolean) =>
    store.insert({ ...row, id, sampling: { ...sampling, background } });
  await insert("expl_old", false);
  await insert("expl_old_background", true);
  at = Date.now() - 60_000;
  await insert("expl_alive", true);
  await service.settleInterrupted({ exclusive: false });
  expect(await service.get("expl_old")).toMatchObject({ status: "failed", error: { code: "interrupted" } });
  await expect.poll(async () => (await service.get("expl_old_background")).status).toBe("completed");
  expect((await service.get("expl_alive")).status).toBe("in_progress");
  await store.update("expl_alive", { status: "cancelled" });
});

test("a temperature that is no distribution any more is refused before anything is written down", async () => {
  const before = (await call("GET", "/v1/explanations?limit=100")).body.data.length;
  const { status, body } = await create({ temperature: 1e-9, stream: true });
  expect(status).toBe(400);
  expect(body.error).toMatchObject({ param: "temperature", code: "invalid_value" });
  expect((await call("GET", "/v1/explanations?limit=100")).body.data.length).toBe(before);
  expect((await create({ temperature: 0 })).status).toBe(200);
});
