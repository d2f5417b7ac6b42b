/** What training sessions refuse, and with which words. The weights pretend; models, adapters and their checks are real. */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { trainingSessionRoutes } from "../../src/api/training/sessions/routes.ts";
import { createTrainingSessionService, type TrainingSessionService } from "../../src/api/training/sessions/service.ts";
import type { Database } from "../../src/db/database.ts";
import type { Trainable, TrainingModel } from "../../src/engine/engine.ts";
import { createApp } from "../../src/http/app.ts";
import type { ApiApp, Principal } from "../../src/http/context.ts";
import { openTestDatabase } from "../db/databases.ts";
import {
  type Answer,
  createModelsFixture,
  type ModelsFixture,
  modelsDirectory,
  removeDirectory,
} from "./models-fixture.ts";

const ROUTE = "/v1/training/sessions";
const VOCABULARY = 512;
/** Of toys, whatever their config says. */
const CONTEXT = 4096;
/** Room for an adapter of low rank, not for four copies of all weights. */
const BUDGET_BYTES = 2 ** 20;

let database: Database;
let models: string;
let directory: string;
let fixture: ModelsFixture;
let sessions: TrainingSessionService;
let app: ApiApp;
const trained: Trainable[] = [];
let gradNorm = 1;

const training = (): TrainingModel => {
  let step = 0;
  const answer: TrainingModel["forward"] = async ({ sequences }) => ({
    loss: 1,
    logprobs: sequences.map(({ ids }) => Float32Array.from(ids, (_, t) => (t === 0 ? Number.NaN : -t))),
  });
  return {
    trainableParameters: 7,
    forwardBackward: answer,
    forward: answer,
    optimStep: async () => ({ step: ++step, gradNorm }),
    save: async () => undefined,
    restore: async () => ({ step: 0 }),
    close: async () => undefined,
  };
};

const principals: Readonly<Record<string, Principal>> = {
  trainer: { id: "key_1", scopes: new Set(["train"]) },
  reader: { id: "key_2", scopes: new Set(["explain", "score"]) },
};

beforeAll(async () => {
  database = await openTestDatabase();
  models = await modelsDirectory({ base: "llama", other: "qwen2" });
  directory = await mkdtemp(path.join(tmpdir(), "preceptor-sessions-"));
  fixture = createModelsFixture({
    database,
    directory: models,
    async train(_checkpoint, { trainable }) {
      trained.push(trainable);
      return training();
    },
  });
  sessions = createTrainingSessionService({
    models: fixture.service,
    engine: fixture.engine,
    placement: fixture.placement,
    checkpoints: {
      // The fake engine writes no files that could be hashed.
      create: async ({ write }) => ({
        id: "ckpt_fake",
        ...(await write(path.join(directory, "ckpt_fake"))),
        createdAt: new Date(5000),
      }),
    },
    directory: path.join(directory, "sessions"),
    budgetBytes: BUDGET_BYTES,
    now: () => new Date(1000),
    random: () => 0.5,
  });
  app = createApp({
    routes: [trainingSessionRoutes({ sessions })],
    authenticate: (key) => principals[key] ?? null,
    strictJson: true,
  });
  await fixture.call("POST", "/v1/teachers", { id: "plain", model: "base" });
  await fixture.call("POST", "/v1/students", { id: "adapted", model: "base", adapter: "base/adapter" });
});
afterAll(async () => {
  await sessions.close();
  await fixture.close();
  await database.close();
  await removeDirectory(models);
  await rm(directory, { recursive: true, force: true });
});

async function call(
  method: string,
  route: string,
  body?: object,
  key = "trainer",
): Promise<{ status: number; body: Answer }> {
  const response = await app.request(route, {
    method,
    headers: { authorization: `Bearer ${key}`, ...(body ? { "content-type": "application/json" } : {}) },
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
  return { status: response.status, body: await response.json() };
}
const create = (body: object) => call("POST", ROUTE, body);
const remove = (id: string) => call("DELETE", `${ROUTE}/${id}`);

async function opened(body: object): Promise<Answer> {
  const { status, body: session } = await create(body);
  expect(status, JSON.stringify(session)).toBe(201);
  return session;
}

describe("create", () => {
  test("every default is filled in and stated", async () => {
    const session = await opened({ model: "plain", lora: { r: 2 }, metadata: { run: "a" } });
    expect(session).toEqual({
      id: expect.stringMatching(/^sess_[0-9a-z]{24}$/),
      object: "training.session",
      created_at: 1,
      expires_at: 3601,
      model: "plain",
      version: 1,
      adapter: null,
      full: false,
      lora: {
        rank: 2,
        alpha: 4,
        targets: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        use_rslora: false,
        seed: 2 ** 31,
      },
      trainable_parameters: 7,
      step: 0,
      context_length: CONTEXT,
      vocab_size: VOCABULARY,
      weights_hash: expect.stringMatching(/^sha256:/),
      tokenizer_hash: "sha256:fake",
      metadata: { run: "a" },
    });
    expect((await call("GET", `${ROUTE}/${session.id}`)).body).toEqual(session);
    expect((await remove(session.id)).body).toEqual({ id: session.id, object: "training.session", deleted: true });
  });

  test("PEFT's names mean the same", async () => {
    const lora = {
      r: 2,
      lora_alpha: 3,
      target_modules: ["v_proj", "q_proj"],
      use_rslora: true,
      lora_dropout: 0,
      seed: 4,
    };
    const session = await opened({ model: "other", lora });
    expect(session).toMatchObject({ model: "other", version: null });
    expect(trained.at(-1)).toEqual({
      kind: "lora",
      lora: { rank: 2, alpha: 3, targets: ["q_proj", "v_proj"], rsLora: true, seed: 4 },
    });
    await remove(session.id);
    const all = await opened({ model: "base", lora: { rank: 1, targets: "all-linear" } });
    expect(all.lora.targets).toHaveLength(7);
    await remove(all.id);
  });

  test("an adapter: of the request, or of the version", async () => {
    const given = { model: "plain@1", adapter: "base/adapter" };
    for (const body of [given, { ...given, lora: { rank: 4 } }, { model: "adapted" }, { model: "adapted@latest" }]) {
      const session = await opened(body);
      expect(session).toMatchObject({ adapter: "base/adapter", lora: null, full: false });
      expect(trained.at(-1)).toMatchObject({ kind: "adapter" });
      await remove(session.id);
    }
  });

  test.each<[string, object, number, string, string | null, RegExp]>([
    ["no such model", { model: "nobody" }, 400, "model_source_not_found", "model", /nobody/],
    ["no such version", { model: "plain@9" }, 404, "model_not_found", "model", /no version/],
    ["a path outside", { model: "/etc" }, 400, "model_source_not_allowed", "model", /outside/],
    ["a remote model", { model: "openai+http://h:1/v1#m" }, 400, "unsupported_by_backend", "model", /another server/],
    ["no such adapter", { model: "plain", adapter: "base/none" }, 400, "model_source_not_found", "adapter", /none/],
    [
      "a model for an adapter",
      { model: "plain", adapter: "base" },
      400,
      "invalid_adapter",
      "adapter",
      /adapter_config/,
    ],
    ["an adapter of another base", { model: "other", adapter: "base/adapter" }, 400, "invalid_adapter", "adapter", /./],
    ["lora and full", { model: "plain", lora: {}, full: true }, 400, "invalid_value", "full", /not both/],
    ["adapter and full", { model: "plain", adapter: "a", full: true }, 400, "invalid_value", "full", /leave out/],
    [
      "full of a version with an adapter",
      { model: "adapted", full: true },
      400,
      "invalid_value",
      "full",
      /has an adapter/,
    ],
    ["full beyond memory", { model: "plain", full: true }, 503, "out_of_memory", null, /MiB.*PRECEPTOR_MODEL_MEMORY/],
    [
      "a rank beyond memory",
      { model: "plain", lora: { rank: 900 } },
      503,
      "out_of_memory",
      null,
      /PRECEPTOR_MODEL_MEMORY/,
    ],
    ["rank 0", { model: "plain", lora: { rank: 0 } }, 400, "invalid_value", "lora.rank", /rank 1 or more.*full: true/],
    ["r 0", { model: "plain", lora: { r: 0 } }, 400, "invalid_value", "lora.r", /rank 1 or more/],
    ["two ranks", { model: "plain", lora: { rank: 1, r: 2 } }, 400, "invalid_value", "lora.r", /another name of rank/],
    [
      "dropout",
      { model: "plain", lora: { lora_dropout: 0.1 } },
      400,
      "unsupported_parameter",
      "lora.lora_dropout",
      /random/,
    ],
    [
      "an unknown target",
      { model: "plain", lora: { targets: ["q_proj", "lm_head"] } },
      400,
      "invalid_value",
      "lora.targets.1",
      /lm_head.*down_proj/,
    ],
    ["no target", { model: "plain", lora: { targets: [] } }, 400, "invalid_value", "lora.targets", /./],
    [
      "another rank than the adapter's",
      { model: "adapted", lora: { rank: 3 } },
      400,
      "invalid_value",
      "lora.rank",
      /another rank/,
    ],
    ["an unknown field", { model: "plain", lora: { rnk: 1 } }, 400, "unknown_parameter", "lora.rnk", /"rank"|"r"/],
    ["no model", {}, 400, "invalid_value", "model", /required/],
  ])("%s", async (_, body, status, code, param, message) => {
    const before = trained.length;
    const answer = await create(body);
    expect(answer).toMatchObject({ status, body: { error: { code, param } } });
    expect(answer.body.error.message).toMatch(message);
    expect(trained).toHaveLength(before);
  });

  test("more than eight at once, and pages of them", async () => {
    const ids: string[] = [];
    for (let i = 0; i < 8; i++) ids.push((await opened({ model: "plain", lora: { rank: 1 } })).id);
    const refused = await create({ model: "plain", lora: { rank: 1 } });
    expect(refused).toMatchObject({ status: 429, body: { error: { code: "too_many_sessions" } } });
    const page = (await call("GET", `${ROUTE}?limit=3&order=asc`)).body;
    expect(page.data.map(({ id }: Answer) => id)).toEqual(ids.slice(0, 3));
    expect(page).toMatchObject({ object: "list", first_id: ids[0], last_id: ids[2], has_more: true });
    const last = (await call("GET", `${ROUTE}?after=${ids[1]}`)).body;
    expect(last).toMatchObject({ first_id: ids[0], has_more: false, data: { length: 1 } });
    for (const id of ids) expect((await remove(id)).status).toBe(200);
    expect((await call("GET", ROUTE)).body).toMatchObject({ data: [], first_id: null, has_more: false });
    expect(await readdir(path.join(directory, "sessions"))).toEqual([]);
  });

  test("the key needs the scope train, everywhere", async () => {
    const lost = `${ROUTE}/sess_0`;
    const routes = [
      ["POST", ROUTE],
      ["GET", ROUTE],
      ["GET", lost],
      ["DELETE", lost],
      ...["forward_backward", "forward", "optim_step", "sample", "logprobs", "save"].map((name) => [
        "POST",
        `${lost}/${name}`,
      ]),
    ] as [string, string][];
    for (const [method, route] of routes) {
      const answer = await call(method, route, method === "POST" ? {} : undefined, "reader");
      expect(answer, route).toMatchObject({ status: 403, body: { error: { code: "insufficient_scope" } } });
    }
  });
});

describe("an open session", () => {
  let id: string;
  beforeAll(async () => {
    ({ id } = await opened({ model: "plain", lora: { rank: 1 } }));
  });
  afterAll(() => remove(id));
  const ask = (what: string, body: object) => call("POST", `${ROUTE}/${id}/${what}`, body);

  const tokens = [1, 2, 3];
  const datum = { tokens, weights: [0, 1, 1] };
  const ce = { loss: "cross_entropy", data: [datum] };
  const rl = { tokens, advantages: 1, ref_logprobs: [null, -1, -1], old_logprobs: [null, -1, -1] };
  const loss = (name: string, more: object, config: object = {}) => ({ loss: name, data: [more], config });

  test("what a loss answers: one number per token, null first, and its metrics", async () => {
    for (const kind of ["forward", "forward_backward"]) {
      const { status, body } = await ask(kind, loss("ppo", { ...rl, weights: [0, 1, 2] }, { clip_low: 0.1 }));
      expect(status).toBe(200);
      expect(body).toMatchObject({
        loss: 1,
        logprobs: [[null, -1, -2]],
        config: { temperature: 0.7, beta: 0.04, clip_low: 0.1, clip_high: 0.2 },
        step: 0,
      });
      const e = Math.exp(-1);
      expect(body.metrics).toEqual({
        sequences: 1,
        tokens: 3,
        loss_tokens: 2,
        weight: 3,
        logprob_mean: -1.5,
        kl: expect.closeTo((Math.E - 2) / 2, 6),
        ratio_mean: expect.closeTo((1 + e) / 2, 6),
        // A ratio that fell under its bound is clipped where the advantage would push it further down only.
        clip_fraction: 0,
      });
    }
    const pushed = await ask("forward", loss("ppo", { ...rl, advantages: [0, -1, -1] }));
    expect(pushed.body.metrics.clip_fraction).toBe(0.5);
  });

  test.each<[string, object, object]>([
    ["cross_entropy", { tokens }, { temperature: 1, beta: 0 }],
    ["grpo", { tokens, advantages: 1, ref_logprobs: [null, 0, 0] }, { temperature: 0.7, beta: 0.04 }],
    ["importance_sampling", { tokens, advantages: 1, old_logprobs: [null, 0, 0] }, { temperature: 0.7, beta: 0 }],
    ["ppo", { tokens, advantages: 1, old_logprobs: [null, 0, 0] }, { temperature: 0.7, beta: 0 }],
  ])("defaults of %s", async (name, data, config) => {
    expect((await ask("forward", loss(name, data))).body.config).toMatchObject(config);
  });

  test.each<[string, object, string, string, RegExp]>([
    [
      "weights of another length",
      { ...ce, data: [{ tokens, weights: [0, 1] }] },
      "invalid_value",
      "data.0.weights",
      /2 numbers for 3 tokens/,
    ],
    [
      "a weight on the first token",
      { ...ce, data: [{ tokens, weights: [1, 1, 1] }] },
      "invalid_value",
      "data.0.weights.0",
      /nothing predicts/,
    ],
    [
      "a negative weight",
      { ...ce, data: [datum, { tokens, weights: [0, -1, 1] }] },
      "invalid_value",
      "data.1.weights.1",
      /from 0/,
    ],
    [
      "a weight that is null",
      { ...ce, data: [{ tokens, weights: [0, null, 1] }] },
      "invalid_value",
      "data.0.weights.1",
      /number/,
    ],
    ["no weight at all", { ...ce, data: [{ tokens, weights: [0, 0, 0] }] }, "empty_loss", "data", /nothing to learn/],
    ["no data", { ...ce, data: [] }, "invalid_value", "data", /./],
    ["one token", { ...ce, data: [{ tokens: [1] }] }, "invalid_value", "data.0.tokens", /at least 2/],
    [
      "an id beyond the vocabulary",
      { ...ce, data: [{ tokens: [1, VOCABULARY] }] },
      "invalid_token_ids",
      "data.0.tokens.1",
      /0 to 511/,
    ],
    [
      "more tokens than the context",
      { ...ce, data: [{ tokens: Array(CONTEXT + 1).fill(1) }] },
      "context_length_exceeded",
      "data.0.tokens",
      /4097.*4096/,
    ],
    ["an unknown loss", { ...ce, loss: "dpo" }, "invalid_value", "loss", /cross_entropy/],
    [
      "an unknown field",
      { ...ce, data: [{ ...datum, advantage: 1 }] },
      "unknown_parameter",
      "data.0.advantage",
      /advantages/,
    ],
    ["no advantages", loss("grpo", { ...rl, advantages: undefined }), "invalid_value", "data.0.advantages", /required/],
    [
      "advantages of another length",
      loss("grpo", { ...rl, advantages: [1] }),
      "invalid_value",
      "data.0.advantages",
      /1 numbers for 3/,
    ],
    [
      "grpo without its reference",
      loss("grpo", { tokens, advantages: 1 }),
      "invalid_value",
      "data.0.ref_logprobs",
      /beta is 0.04.*beta = 0/,
    ],
    [
      "ppo with beta and no reference",
      loss("ppo", { ...rl, ref_logprobs: undefined }, { beta: 1 }),
      "invalid_value",
      "data.0.ref_logprobs",
      /beta is 1/,
    ],
    [
      "ppo without the old policy",
      loss("ppo", { tokens, advantages: 1 }),
      "invalid_value",
      "data.0.old_logprobs",
      /ppo compares/,
    ],
    [
      "importance_sampling without it",
      loss("importance_sampling", { tokens, advantages: 1 }),
      "invalid_value",
      "data.0.old_logprobs",
      /compares/,
    ],
    [
      "log-probs that do not begin with null",
      loss("ppo", { ...rl, old_logprobs: [0, -1, -1] }),
      "invalid_value",
      "data.0.old_logprobs.0",
      /null/,
    ],
    [
      "log-probs with a hole",
      loss("ppo", { ...rl, old_logprobs: [null, -1, null] }),
      "invalid_value",
      "data.0.old_logprobs.2",
      /number/,
    ],
    [
      "log-probs of another length",
      loss("ppo", { ...rl, old_logprobs: [null, -1] }),
      "invalid_value",
      "data.0.old_logprobs",
      /2 numbers/,
    ],
    ["temperature 0", { ...ce, config: { temperature: 0 } }, "invalid_value", "config.temperature", /./],
    ["a negative beta", { ...ce, config: { beta: -1 } }, "invalid_value", "config.beta", /./],
  ])("a loss of %s is refused", async (_, body, code, param, message) => {
    for (const kind of ["forward_backward", "forward"]) {
      const answer = await ask(kind, body);
      expect(answer).toMatchObject({ status: 400, body: { error: { code, param } } });
      expect(answer.body.error.message).toMatch(message);
    }
  });

  test.each<[string, string, object, string, string]>([
    ["optim_step", "no learning rate", {}, "invalid_value", "learning_rate"],
    ["optim_step", "a beta of 1", { learning_rate: 1, betas: [0.9, 1] }, "invalid_value", "betas.1"],
    ["optim_step", "eps 0", { learning_rate: 1, eps: 0 }, "invalid_value", "eps"],
    ["optim_step", "a clip of 0", { learning_rate: 1, clip: 0 }, "invalid_value", "clip"],
    ["sample", "no prompt", {}, "invalid_value", "prompt"],
    ["sample", "an empty prompt", { prompt: [] }, "invalid_value", "prompt"],
    ["sample", "an unknown id", { prompt: [VOCABULARY] }, "invalid_token_ids", "prompt.0"],
    ["sample", "a full context", { prompt: Array(CONTEXT).fill(1) }, "context_length_exceeded", "prompt"],
    ["sample", "a long text", { prompt: "a".repeat(CONTEXT * 65) }, "context_length_exceeded", "prompt"],
    ["logprobs", "no data", {}, "invalid_value", "data"],
    ["logprobs", "an unknown id", { data: [{ tokens: [1, VOCABULARY] }] }, "invalid_token_ids", "data.0.tokens.1"],
    [
      "logprobs",
      "too many tokens",
      { data: [{ tokens: Array(CONTEXT + 1).fill(1) }] },
      "context_length_exceeded",
      "data.0.tokens",
    ],
    ["logprobs", "at of another number", { data: [{ tokens }], at: [] }, "invalid_value", "at"],
    ["logprobs", "at of another length", { data: [{ tokens }], at: [[null, [1]]] }, "invalid_value", "at.0"],
    ["logprobs", "at the first token", { data: [{ tokens }], at: [[[1], [1], [1]]] }, "invalid_value", "at.0.0"],
    ["logprobs", "at an unknown id", { data: [{ tokens }], at: [[null, [1], [999]]] }, "invalid_token_ids", "at.0.2.0"],
    [
      "logprobs",
      "an answer too large",
      { data: Array(4).fill({ tokens: Array(4000).fill(1) }), top_k: 256 },
      "invalid_value",
      "top_k",
    ],
    ["save", "an unknown field", { stat: true }, "unknown_parameter", "stat"],
  ])("%s: %s is refused", async (what, _, body, code, param) => {
    expect(await ask(what, body)).toMatchObject({ status: 400, body: { error: { code, param } } });
  });

  test("steps count, and gradients that are not finite are told", async () => {
    expect((await ask("optim_step", { learning_rate: 0.1 })).body).toEqual({ step: 1, grad_norm: 1 });
    gradNorm = Number.POSITIVE_INFINITY;
    const answer = await ask("optim_step", { learning_rate: 0.1 });
    gradNorm = 1;
    expect(answer).toMatchObject({ status: 500, body: { error: { code: "loss_not_finite" } } });
    expect(answer.body.error.message).toMatch(/go on from what you saved/);
  });

  test("what is saved has an id; the body may be left out", async () => {
    const saved = await call("POST", `${ROUTE}/${id}/save`);
    expect(saved).toMatchObject({
      status: 201,
      body: { object: "checkpoint", created_at: 5, step: 2, kind: "adapter" },
    });
    expect(saved.body.id).toMatch(/^ckpt_/);
  });

  test("a session that is not open is lost, and the answer says what to do", async () => {
    const lost = `${ROUTE}/sess_0123`;
    for (const [method, route, body] of [
      ["GET", lost],
      ["DELETE", lost],
      ["POST", `${lost}/forward`, ce],
      ["POST", `${lost}/save`, {}],
      ["GET", `${ROUTE}?after=sess_0123`],
    ] as [string, string, object?][]) {
      const answer = await call(method, route, body);
      expect(answer).toMatchObject({ status: 404, body: { error: { code: "session_lost", type: "not_found_error" } } });
      expect(answer.body.error.message).toMatch(/Create another/);
    }
    expect(await call("GET", `${ROUTE}/nonsense`)).toMatchObject({ status: 400, body: { error: { param: "id" } } });
  });
});
