/** Training jobs through the front door: an untrained miniature teaches an untrained miniature. */
import { afterAll, beforeAll, expect, test } from "vitest";
import type { CheckpointDetail, CheckpointResource } from "../../src/api/checkpoints/schemas.ts";
import type { Estimate } from "../../src/api/training/estimates/schemas.ts";
import type { TrainingJob } from "../../src/api/training/jobs/schemas.ts";
import type { Preview } from "../../src/api/training/preview/schemas.ts";
import { parseEvents } from "../../src/parse-events.ts";
import { type Running, startPreceptor } from "./running.ts";
import {
  eventsOf,
  memoryDatasets,
  miniatureDirectory,
  RLT_JOB,
  registerBoth,
  trailOf,
  waitFor,
} from "./training-fixture.ts";

let models: Awaited<ReturnType<typeof miniatureDirectory>>;
let server: Running;
beforeAll(async () => {
  models = await miniatureDirectory();
  server = await startPreceptor({ PRECEPTOR_MODELS_DIRS: models.directory, PRECEPTOR_THREADS: "1" }, undefined, {
    datasets: memoryDatasets(),
  });
  await registerBoth(server);
});
afterAll(async () => {
  await server?.close();
  await models?.remove();
});

const LONG_JOB = {
  ...RLT_JOB,
  teacher: "teacher@1",
  hyperparameters: { ...RLT_JOB.hyperparameters, max_steps: 12, save_steps: 3 },
  suffix: "long",
};
const start = (body: object): Promise<TrainingJob> => server.post("/v1/training/jobs", body, 201);
const weightsOf = async (job: TrainingJob): Promise<string> =>
  (await server.get<CheckpointDetail>(`/v1/checkpoints/${job.result!.checkpoint}`)).weights_hash;
const textsBy = async (teacher: string): Promise<string[]> => {
  const body = { teacher, question: "1 + 2", solution: "3", n: 2, seed: 5, max_tokens: 12 };
  const { choices } = await server.post<{ choices: { explanation: string }[] }>("/v1/explanations", body);
  return choices.map(({ explanation }) => explanation);
};

test("a job of rlt runs to its end and publishes the next version of its teacher", async () => {
  const created = await start({ ...RLT_JOB, metadata: { run: "7" } });
  expect(created).toMatchObject({ status: "queued", method: "rlt", seed: 7, metadata: { run: "7" } });
  expect(created.config).toMatchObject({ model: "teacher@1", student: "student@1", from_checkpoint: null });
  const job = await waitFor(server, created.id);
  expect(job.error).toBeUndefined();
  expect(job).toMatchObject({
    status: "succeeded",
    progress: { step: 3, total_steps: 3, percent: 100, phase: "main" },
  });
  expect(job.result).toMatchObject({ teacher: "teacher@2", step: 3, stopped_early: false });

  const events = await eventsOf(server, job.id);
  expect(events.map(({ sequence_number: n }) => n)).toEqual(events.map((_, i) => i + 1));
  const step = ["job.metrics", "job.sample", "job.sample", "job.checkpoint"];
  expect(events.map(({ type }) => type)).toEqual([
    "job.status",
    "job.status",
    ...step,
    ...step,
    ...step,
    "job.completed",
  ]);
  const [metrics] = events.filter(({ type }) => type === "job.metrics");
  const names =
    "reward reward_std frac_reward_zero_std kl entropy completions/mean_length completions/clipped_ratio grad_norm";
  for (const name of `${names} num_tokens step_time sampling/sampling_logp_difference/mean rlt/solution_reward`.split(
    " ",
  )) {
    expect((metrics!.data as { metrics: Record<string, number> }).metrics[name], name).toBeTypeOf("number");
  }
  const series = await server.get<{ data: Record<string, unknown> }>(
    `/v1/training/jobs/${job.id}/metrics?names=reward,kl`,
  );
  expect(Object.keys(series.data).sort()).toEqual(["kl", "reward"]);
  expect(series.data.reward).toHaveLength(3);

  const checkpoint = job.result!.checkpoint!;
  const { data } = await server.get<{ data: CheckpointResource[] }>(`/v1/training/jobs/${job.id}/checkpoints`);
  expect(data.map((each) => each.step)).toEqual([3, 2, 1]);
  expect(data[0]).toMatchObject({ id: checkpoint, kind: "adapter", model: "teacher@1", job: job.id });
  // The published version is this checkpoint, and it is another model than the one before.
  expect(await textsBy(`teacher@${checkpoint}`)).toEqual(await textsBy("teacher"));
  expect(await textsBy("teacher@2")).not.toEqual(await textsBy("teacher@1"));
  expect(await server.get("/v1/teachers/teacher")).toMatchObject({ version: 2, adapter: checkpoint });
}, 60_000);

test("a checkpoint's files are served whole, in part, and as an archive; one that is in use stays", async () => {
  const { data } = await server.get<{ data: CheckpointResource[] }>("/v1/checkpoints?limit=100");
  const [last, before] = data;
  const url = `${server.url}/v1/checkpoints/${last!.id}`;
  const { files } = (await (await fetch(url)).json()) as CheckpointDetail;
  const file = files.find(({ name }) => name === "adapter_model.safetensors")!;
  const whole = await fetch(`${url}/files/${file.name}`);
  const bytes = Buffer.from(await whole.arrayBuffer());
  expect(bytes.length).toBe(file.bytes);
  const part = await fetch(`${url}/files/${file.name}`, { headers: { range: "bytes=8-15" } });
  expect([part.status, part.headers.get("content-range")]).toEqual([206, `bytes 8-15/${file.bytes}`]);
  expect(Buffer.from(await part.arrayBuffer())).toEqual(bytes.subarray(8, 16));
  const end = await fetch(`${url}/files/${file.name}`, { headers: { range: "bytes=-4" } });
  expect(Buffer.from(await end.arrayBuffer())).toEqual(bytes.subarray(-4));
  const beyond = await fetch(`${url}/files/${file.name}`, { headers: { range: `bytes=${file.bytes}-` } });
  expect([beyond.status, beyond.headers.get("content-range")]).toEqual([416, `bytes */${file.bytes}`]);
  const known = await fetch(`${url}/files/${file.name}`, { headers: { "if-none-match": whole.headers.get("etag")! } });
  expect(known.status).toBe(304);
  for (const name of ["..%2Frun_state.json", "%2e%2e", "none"])
    expect((await fetch(`${url}/files/${name}`)).status).toBe(404);

  const archive = Buffer.from(await (await fetch(`${url}/archive`)).arrayBuffer());
  expect(archive.length % 512).toBe(0);
  expect(archive.includes(bytes)).toBe(true);
  expect(archive.toString("latin1", 257, 262)).toBe("ustar");
  const merged = Buffer.from(await (await fetch(`${url}/archive?merged=true`)).arrayBuffer());
  expect(merged.includes("model.safetensors")).toBe(true);
  expect(merged.includes("adapter_model.safetensors")).toBe(false);

  expect((await fetch(url, { method: "DELETE" })).status).toBe(409);
  const other = `${server.url}/v1/checkpoints/${before!.id}`;
  expect((await fetch(other, { method: "DELETE" })).status).toBe(200);
  expect((await fetch(other)).status).toBe(404);
  await server.post("/v1/explanations", { teacher: `teacher@${before!.id}`, question: "1", solution: "1" }, 404);
}, 60_000);

let undisturbed: { trail: Awaited<ReturnType<typeof trailOf>>; weights: string };

test("events come live, from where the reader stopped, and end with the job", async () => {
  const job = await start(LONG_JOB);
  const read = async (headers: Record<string, string>, until = Infinity): Promise<{ id: number; type: string }[]> => {
    const answer = await fetch(`${server.url}/v1/training/jobs/${job.id}/events`, {
      headers: { accept: "text/event-stream", ...headers },
    });
    const seen: { id: number; type: string }[] = [];
    for await (const { data } of parseEvents(answer.body as never)) {
      const { type, sequence_number: id } = JSON.parse(data) as { type: string; sequence_number: number };
      seen.push({ id, type });
      if (id >= until) break;
    }
    return seen;
  };
  const first = await read({}, 5);
  const rest = await read({ "last-event-id": "5" });
  const all = [...first, ...rest];
  expect(all.map(({ id }) => id)).toEqual(all.map((_, i) => i + 1));
  expect(all.at(-1)!.type).toBe("job.completed");
  expect(await read({ "last-event-id": String(all.length) })).toEqual([]);
  const ended = await waitFor(server, job.id);
  expect(ended.result).toMatchObject({ teacher: "teacher-long@1" });
  undisturbed = { trail: await trailOf(server, job.id), weights: await weightsOf(ended) };
}, 60_000);

test("a job that is paused and resumed becomes what it would have been", async () => {
  const { id } = await start(LONG_JOB);
  await waitFor(server, id, ({ progress }) => progress.step >= 1);
  await server.post(`/v1/training/jobs/${id}/pause`, {});
  const paused = await waitFor(server, id, ({ status }) => status === "paused");
  expect(paused.progress.step).toBeLessThan(12);
  await server.post(`/v1/training/jobs/${id}/resume`, {});
  const job = await waitFor(server, id);
  expect(job).toMatchObject({ status: "succeeded", attempts: 2, result: { teacher: "teacher-long@2" } });
  expect(await trailOf(server, id)).toEqual(undisturbed.trail);
  expect(await weightsOf(job)).toBe(undisturbed.weights);
}, 60_000);

test("a cancelled job keeps its last checkpoint, from which a fork goes on to the same end", async () => {
  const { id } = await start(LONG_JOB);
  await waitFor(server, id, ({ progress }) => progress.step >= 1);
  await server.post(`/v1/training/jobs/${id}/cancel`, {});
  const job = await waitFor(server, id);
  expect(job.status).toBe("cancelled");
  expect((await eventsOf(server, id)).at(-1)!.type).toBe("job.cancelled");
  const { step, checkpoint } = job.result!;
  expect(await server.get(`/v1/checkpoints/${checkpoint}`)).toMatchObject({ step, job: id });
  expect(job.result).not.toHaveProperty("teacher");
  await server.post(`/v1/training/jobs/${id}/fork`, { hyperparameters: { max_steps: 1 } }, 400);
  const fork = await server.post<TrainingJob>(`/v1/training/jobs/${id}/fork`, { suffix: "fork" }, 201);
  expect(fork.config.from_checkpoint).toBe(checkpoint);
  const ended = await waitFor(server, fork.id);
  expect(ended).toMatchObject({ status: "succeeded", result: { teacher: "teacher-fork@1", step: 12 } });
  expect(await weightsOf(ended)).toBe(undisturbed.weights);
}, 60_000);

test("a warm-up and full weights: the result is a model of its own", async () => {
  const { id } = await start({
    ...RLT_JOB,
    teacher: "teacher@1",
    lora: undefined,
    full: true,
    warmup: { max_steps: 2, batch_size: 4 },
    eval: { held_out: 0.25, rows: 2 },
    suffix: "full",
  });
  const job = await waitFor(server, id);
  expect(job.error).toBeUndefined();
  expect(job).toMatchObject({
    status: "succeeded",
    progress: { step: 5, total_steps: 5 },
    result: { teacher: "teacher-full@1" },
  });
  expect(job.metrics.eval_reward).toBeTypeOf("number");
  expect(await textsBy("teacher-full")).not.toEqual(await textsBy("teacher@1"));
  expect(await server.get("/v1/teachers/teacher-full")).toMatchObject({ model: job.result!.checkpoint, adapter: null });
}, 60_000);

test("sft of a student makes its next version, which a job may then name by its checkpoint", async () => {
  const hyperparameters = { max_steps: 2, batch_size: 4, learning_rate: 0.01 };
  const { id } = await start({ method: "sft", role: "student", model: "student", dataset: "digits", hyperparameters });
  const job = await waitFor(server, id);
  expect(job).toMatchObject({ status: "succeeded", result: { student: "student@2" } });
  const named = `student@${job.result!.checkpoint}`;
  const next = await start({ ...RLT_JOB, teacher: "teacher@1", student: named, suffix: "other" });
  expect(next.config.student).toBe(named);
  expect(await waitFor(server, next.id)).toMatchObject({ status: "succeeded" });
}, 60_000);

test("a spent budget ends a job with its last checkpoint and a warning", async () => {
  const { id } = await start({ ...LONG_JOB, budget: { tokens: 300 } });
  const job = await waitFor(server, id);
  expect(job.status).toBe("succeeded");
  expect(job.progress.step).toBeLessThan(12);
  expect(job.result!.checkpoint).toMatch(/^ckpt_/);
  expect((await eventsOf(server, id)).at(-2)).toMatchObject({ type: "job.warning", data: { code: "budget_spent" } });
}, 60_000);

test("an estimate names the job whose rate it takes, and an assumption where there is none", async () => {
  const { suffix: _, ...body } = LONG_JOB;
  const estimate = await server.post<Estimate>("/v1/estimates", body);
  expect(estimate).toMatchObject({ steps: 12, rows: 12, rate: { basis: "measured" } });
  expect(estimate.tokens.sampled).toBe(12 * 8 * 24);
  expect(estimate.tokens.trained).toBeGreaterThan(estimate.tokens.sampled);
  expect(estimate.seconds).toBeGreaterThan(0);
  const rank = { method: "sft", role: "student", model: "student@1", dataset: "digits", full: true };
  const other = await server.post<Estimate>("/v1/estimates", rank);
  expect(other).toMatchObject({ steps: 1, rate: { basis: "assumed" }, tokens: { sampled: 0, scored: 0 } });
  expect(other.memory_bytes).toBeGreaterThan(estimate.memory_bytes);
  await server.post("/v1/estimates", { ...body, dataset: "none" }, 404);
}, 60_000);

test("a preview of rewards scores groups as a step does", async () => {
  const body = {
    teacher: "teacher@1",
    student: "student@1",
    dataset: "digits",
    rows: 2,
    num_generations: 4,
    max_completion_length: 24,
    seed: 3,
  };
  const preview = await server.post<Preview>("/v1/rewards/preview", body);
  expect(preview.data.map(({ completions }) => completions.length)).toEqual([4, 4]);
  for (const { completions, reward_mean, silent } of preview.data) {
    const rewards = completions.map(({ reward }) => reward);
    expect(reward_mean).toBeCloseTo(rewards.reduce((sum, reward) => sum + reward, 0) / 4, 10);
    expect(silent).toBe(false);
    expect(completions.reduce((sum, { advantage }) => sum + advantage, 0)).toBeCloseTo(0, 4);
  }
  expect(preview).toMatchObject({ frac_reward_zero_std: 0, seed: 3 });
  expect(await server.post<Preview>("/v1/rewards/preview", body)).toEqual(preview);
  await server.post("/v1/rewards/preview", { ...body, student: undefined }, 400);
  await server.post("/v1/rewards/preview", { ...body, dataset: undefined }, 400);
}, 60_000);
