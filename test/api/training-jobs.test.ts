/** What a training job is refused for, each with its path, before anything is queued. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { checkJob } from "../../src/api/training/jobs/check.ts";
import type { TrainingJob } from "../../src/api/training/jobs/schemas.ts";
import { configHash, resolveConfig } from "../../src/train/resolve-config.ts";
import { type Running, startPreceptor } from "../e2e/running.ts";
import { memoryDatasets, miniatureDirectory, RLT_JOB, registerBoth } from "../e2e/training-fixture.ts";

let models: Awaited<ReturnType<typeof miniatureDirectory>>;
let server: Running;
beforeAll(async () => {
  models = await miniatureDirectory();
  // Nobody runs what is queued.
  server = await startPreceptor(
    { PRECEPTOR_MODELS_DIRS: models.directory, PRECEPTOR_ALLOWED_HOSTS: "rewards.example.org" },
    undefined,
    { role: "api", datasets: memoryDatasets() },
  );
  await registerBoth(server);
});
afterAll(async () => {
  await server?.close();
  await models?.remove();
});

interface Refusal {
  error: { code: string; param: string | null; message: string };
}

const { hyperparameters } = RLT_JOB;
const sft = { method: "sft", role: "teacher", model: "teacher", dataset: "digits" };
const rlt = (changes: object) => ({ ...RLT_JOB, ...changes });
const hyper = (changes: object) => rlt({ hyperparameters: { ...hyperparameters, ...changes } });

const REFUSALS: [string, object, string, RegExp, string?][] = [
  ["no method", rlt({ method: undefined }), "method", /required/],
  ["an unknown field", rlt({ hyperparameter: {} }), "hyperparameter", /hyperparameters/, "unknown_parameter"],
  [
    "an unknown hyperparameter",
    hyper({ learning_rat: 1 }),
    "hyperparameters.learning_rat",
    /learning_rate/,
    "unknown_parameter",
  ],
  [
    "questions that are no whole number",
    hyper({ num_generations: 3 }),
    "hyperparameters.num_generations",
    /4 × 2 \/ 3.*whole/,
  ],
  ["groups of one", hyper({ num_generations: 1 }), "hyperparameters.num_generations", /at least 2/],
  ["no rank", rlt({ lora: { r: 0 } }), "lora.r", /1/],
  ["no rank under its other name", rlt({ lora: { rank: 0 } }), "lora.rank", /1/],
  ["two ranks", rlt({ lora: { r: 4, rank: 8 } }), "lora.rank", /another name for r/],
  ["dropout", rlt({ lora: { lora_dropout: 0.1 } }), "lora.lora_dropout", /must be 0: with dropout/],
  ["a module that is not there", rlt({ lora: { target_modules: ["lm_head"] } }), "lora.target_modules.0", /q_proj/],
  ["lora and full", rlt({ full: true }), "full", /not both/],
  ["epochs twice", hyper({ n_epochs: 2, num_train_epochs: 3 }), "hyperparameters.n_epochs", /another name/],
  ["no steps", hyper({ max_steps: 0 }), "hyperparameters.max_steps", /at least 1/],
  ["no student", rlt({ student: undefined }), "student", /the reward "student"/],
  ["a student nobody asks", rlt({ rewards: [{ type: "exact" }] }), "student", /no reward asks/],
  ["a reward twice", rlt({ rewards: [{ type: "student" }, { type: "student" }] }), "rewards.1.type", /twice/],
  [
    "a reward server that is not allowed",
    rlt({ rewards: [{ type: "student" }, { type: "http", url: "http://169.254.169.254/x" }] }),
    "rewards.1.url",
    /PRECEPTOR_ALLOWED_HOSTS/,
    "model_source_not_allowed",
  ],
  [
    "a password in an address",
    rlt({ rewards: [{ type: "student" }, { type: "http", url: "http://a:b@rewards.example.org/" }] }),
    "rewards.1.url",
    /password/,
  ],
  [
    "a length that falls upwards",
    rlt({ rewards: [{ type: "student" }, { type: "length", target_tokens: 9, max_tokens: 9 }] }),
    "rewards.1.max_tokens",
    /greater than target_tokens/,
  ],
  ["rlt of a student", rlt({ role: "student" }), "role", /sft/],
  ["a model named twice", rlt({ model: "teacher" }), "teacher", /once/],
  ["sft of nobody knows whom", { ...sft, role: undefined }, "role", /required/],
  ["sft with rewards", { ...sft, rewards: [{ type: "exact" }] }, "rewards", /no rewards/],
  ["sft with a warm-up", { ...sft, warmup: {} }, "warmup", /part of rlt/],
  ["sft with a preset", { ...sft, preset: "paper" }, "preset", /one set of defaults/],
  [
    "sft with groups",
    { ...sft, hyperparameters: { num_generations: 4 } },
    "hyperparameters.num_generations",
    /belongs to rlt/,
  ],
  ["a warm-up with β", rlt({ warmup: { beta: 1 } }), "warmup.beta", /belongs to rlt/],
  ["a teacher that is none", { ...sft, model: "student" }, "model", /student only/, "model_not_found"],
  ["a model that is not there", rlt({ teacher: "nobody" }), "teacher", /nobody/, "model_not_found"],
  ["a student that is not there", rlt({ student: "nobody" }), "student", /nobody/, "model_not_found"],
  ["a checkpoint that is not there", rlt({ teacher: "teacher@ckpt_0" }), "teacher", /no checkpoint/, "model_not_found"],
  [
    "more than the context",
    hyper({ max_completion_length: 300 }),
    "hyperparameters.max_completion_length",
    /256 tokens/,
    "context_length_exceeded",
  ],
  [
    "prompt and explanation beyond the context",
    hyper({ max_prompt_length: 200, max_completion_length: 100 }),
    "hyperparameters.max_completion_length",
    /200 \+ max_completion_length 100/,
    "context_length_exceeded",
  ],
  ["a dataset that is not there", rlt({ dataset: "ds_0" }), "dataset", /ds_0/, "not_found"],
  ["a dataset without rows", rlt({ dataset: "empty" }), "dataset", /no rows/],
  ["sft of a teacher without traces", { ...sft, dataset: "bare" }, "dataset", /row 5 has no reasoning_trace/],
  ["a warm-up without traces", rlt({ dataset: "bare", warmup: {} }), "dataset", /row 5 has no reasoning_trace/],
  ["evaluation on nothing", hyper({ eval_steps: 1 }), "hyperparameters.eval_steps", /eval.held_out/],
  ["evaluation on nothing named", rlt({ eval: {} }), "eval.held_out", /or eval.dataset/],
  [
    "evaluation on a dataset that is not there",
    rlt({ eval: { dataset: "ds_1" } }),
    "eval.dataset",
    /ds_1/,
    "not_found",
  ],
  ["evaluation on an empty dataset", rlt({ eval: { dataset: "empty" } }), "eval.dataset", /no rows/],
  [
    "evaluation of sft on rows without traces",
    { ...sft, eval: { dataset: "bare" } },
    "eval.dataset",
    /row 5 has no reasoning_trace/,
  ],
  ["evaluation on two things", rlt({ eval: { dataset: "bare", held_out: 0.1 } }), "eval.held_out", /not both/],
  [
    "the best of evaluations that never come",
    rlt({ hyperparameters: { ...hyperparameters, eval_steps: 0 }, eval: { held_out: 0.1, publish: "best" } }),
    "eval.publish",
    /eval_steps is 0/,
  ],
  [
    "whole weights drawn in q8",
    rlt({ lora: undefined, full: true, rollout_precision: "q8" }),
    "rollout_precision",
    /train with lora/,
  ],
  ["sft drawn in q8", { ...sft, rollout_precision: "q8" }, "rollout_precision", /draws no explanations/],
  ["a share that is the whole", rlt({ eval: { held_out: 1 } }), "eval.held_out", /1/],
  ["an id that is too long", rlt({ suffix: "x".repeat(41) }), "suffix", /40/],
];

test.each(REFUSALS)("%s is refused", async (_, body, param, message, code = "invalid_value") => {
  const status = code === "not_found" || code === "model_not_found" ? 404 : 400;
  const { error } = await server.post<Refusal>("/v1/training/jobs", body, status);
  expect(error).toMatchObject({ code, param });
  expect(error.message).toMatch(message);
});

test("nothing of all that was queued", async () => {
  const { data } = await server.get<{ data: TrainingJob[] }>("/v1/training/jobs?limit=100");
  expect(data.filter(({ metadata }) => metadata.kept !== "yes")).toEqual([]);
});

test("a model that a remote server has cannot be trained", async () => {
  const prepare = async () => ({
    version: { id: "far", version: 1 },
    prepared: { kind: "remote" },
    contextLength: null,
  });
  const deps = { models: { prepare }, datasets: memoryDatasets(), allowedHosts: [], random: () => 0 };
  const refused = checkJob(deps as never, { method: "sft", role: "student", model: "far", dataset: "digits" });
  await expect(refused).rejects.toMatchObject({ code: "unsupported_by_backend", param: "model" });
});

describe("a job that is queued", () => {
  let job: TrainingJob;
  beforeAll(async () => {
    job = await server.post<TrainingJob>("/v1/training/jobs", rlt({ metadata: { kept: "yes" } }), 201);
  });

  test("is found by status, method and metadata", async () => {
    const list = async (query: string) =>
      (await server.get<{ data: TrainingJob[] }>(`/v1/training/jobs?${query}`)).data.map(({ id }) => id);
    expect(await list("status=queued&method=rlt&metadata=kept:yes")).toContain(job.id);
    expect(await list("status=running")).toEqual([]);
    expect(await list("method=sft")).toEqual([]);
    expect(await list("metadata=kept:no")).toEqual([]);
    expect((await server.get<Refusal>("/v1/training/jobs?metadata=kept", 400)).error.param).toBe("metadata");
  });

  test("keeps its model from being deleted", async () => {
    const answer = await fetch(`${server.url}/v1/students/student`, { method: "DELETE" });
    expect(answer.status).toBe(409);
    expect(((await answer.json()) as Refusal).error.message).toContain(job.id);
  });

  test("is counted", async () => {
    const text = await (await fetch(`${server.url}/metrics`)).text();
    expect(text).toMatch(/preceptor_jobs\{kind="training.rlt",status="queued"\} [1-9]/);
  });

  test("is paused, resumed and cancelled at once, and then no more", async () => {
    const path = `/v1/training/jobs/${job.id}`;
    expect(await server.post(`${path}/pause`, {})).toMatchObject({ status: "paused" });
    expect(await server.post(`${path}/resume`, {})).toMatchObject({ status: "queued" });
    expect(await server.post(`${path}/cancel`, {})).toMatchObject({ status: "cancelled" });
    expect((await server.post<Refusal>(`${path}/resume`, {}, 409)).error.code).toBe("conflict");
    expect((await server.post<Refusal>(`${path}/fork`, {}, 409)).error.message).toMatch(/no checkpoint/);
    expect((await server.post<Refusal>(`${path}/fork`, { checkpoint: "ckpt_0" }, 400)).error.param).toBe("checkpoint");
  });
});

test("what is not there is 404", async () => {
  for (const path of ["", "/events", "/metrics", "/checkpoints"]) {
    expect((await server.get<Refusal>(`/v1/training/jobs/tjob_0${path}`, 404)).error.code).toBe("not_found");
  }
  for (const path of ["", "/files/x", "/archive"]) await server.get(`/v1/checkpoints/ckpt_0${path}`, 404);
  await server.get("/v1/training/jobs/tjob_0/events?stream=true", 404);
});

describe("defaults", () => {
  test("the last checkpoint is published, the best where the job may stop early", () => {
    const evaluated = (more: object, patience = 0) =>
      resolve({ eval: { held_out: 0.1, ...more }, hyperparameters: { early_stopping_patience: patience } }).eval;
    expect(evaluated({})).toEqual({ dataset: null, held_out: 0.1, rows: 64, publish: "last" });
    expect(evaluated({}, 2)).toMatchObject({ publish: "best" });
    expect(evaluated({ publish: "last" }, 2)).toMatchObject({ publish: "last" });
    expect(resolve({ eval: { dataset: "ds_1" } }).eval).toMatchObject({ dataset: "ds_1", held_out: 0 });
  });
  const surroundings = { allowedHosts: [], random: () => 0.5 };
  const base = { method: "rlt", teacher: "t", student: "s", dataset: "d" } as const;
  const resolve = (changes: object) => resolveConfig({ ...base, ...changes }, surroundings);

  test("small is the preset; paper has the paper's figures", () => {
    expect(resolve({}).hyperparameters).toMatchObject({
      max_steps: 60,
      num_generations: 8,
      learning_rate: 2e-5,
      beta: 0.04,
    });
    expect(resolve({ preset: "paper", full: true })).toMatchObject({
      lora: null,
      hyperparameters: { max_steps: 125, num_generations: 64, gradient_accumulation_steps: 16, learning_rate: 1e-6 },
    });
  });
  test("OpenAI's and Tinker's names are TRL's and PEFT's", () => {
    const config = resolveConfig(
      {
        method: "sft",
        role: "student",
        model: "m",
        dataset: "d",
        hyperparameters: { n_epochs: 2, batch_size: 5 },
        lora: { rank: 3, alpha: 6, targets: ["v_proj", "q_proj"] },
      },
      surroundings,
    );
    expect(config.hyperparameters).toMatchObject({
      num_train_epochs: 2,
      per_device_train_batch_size: 5,
      max_steps: -1,
    });
    expect(config.lora).toEqual({ r: 3, lora_alpha: 6, target_modules: ["q_proj", "v_proj"], use_rslora: false });
  });
  test("epochs that are named count, unless steps are named too", () => {
    expect(resolve({ hyperparameters: { num_train_epochs: 2 } }).hyperparameters.max_steps).toBe(-1);
    expect(resolve({ hyperparameters: { n_epochs: 2, max_steps: 9 } }).hyperparameters.max_steps).toBe(9);
    expect(resolve({ hyperparameters: { n_epochs: "auto" } }).hyperparameters.max_steps).toBe(60);
  });
  test("the seed at the top wins, and one is drawn where none is", () => {
    expect(resolve({ seed: 3, hyperparameters: { seed: 4 } }).seed).toBe(3);
    expect(resolve({ hyperparameters: { seed: 4 } }).seed).toBe(4);
    expect(resolve({}).seed).toBe(2 ** 31);
  });
  test("equal configurations have equal hashes", () => {
    expect(configHash(resolve({ seed: 1, budget: { tokens: 5 } }))).toBe(
      configHash(resolve({ budget: { tokens: 5 }, seed: 1 })),
    );
    expect(configHash(resolve({ seed: 1 }))).not.toBe(configHash(resolve({ seed: 2 })));
  });
});
