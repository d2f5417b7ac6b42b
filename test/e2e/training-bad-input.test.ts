/** What goes wrong with training jobs and comes of bad input or of the world around: a clear error each, nothing lost. */
import { mkdtemp, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { CheckpointResource } from "../../src/api/checkpoints/schemas.ts";
import type { TrainingJob } from "../../src/api/training/jobs/schemas.ts";
import type { DatasetSource } from "../../src/train/datasets.ts";
import { miniatureConfig, modelConfig, randomWeights, writeModel } from "../miniature/model.ts";
import { type Running, startPreceptor } from "./running.ts";
import { MIB, mountSmallDisk } from "./small-disk.ts";
import { inMemory, memoryDatasets, miniatureDirectory, RLT_JOB, registerBoth, waitFor } from "./training-fixture.ts";

let models: Awaited<ReturnType<typeof miniatureDirectory>>;
let dataDir: string;
let server: Running | undefined;
beforeEach(async () => {
  models = await miniatureDirectory();
  dataDir = await mkdtemp(path.join(tmpdir(), "preceptor-bad-input-"));
});
afterEach(async () => {
  await server?.close();
  await models.remove();
  await rm(dataDir, { recursive: true, force: true });
});

/** The server that was there is closed; the data stay. */
async function start(datasets: DatasetSource = memoryDatasets(), env: Record<string, string> = {}): Promise<Running> {
  await server?.close();
  server = undefined;
  server = await startPreceptor({ PRECEPTOR_MODELS_DIRS: models.directory, PRECEPTOR_THREADS: "1", ...env }, dataDir, {
    datasets,
  });
  return server;
}
const order = (body: object): Promise<TrainingJob> => server!.post("/v1/training/jobs", body, 201);
const savedBy = async ({ id }: TrainingJob) =>
  (await server!.get<{ data: CheckpointResource[] }>(`/v1/training/jobs/${id}/checkpoints`)).data;
const SFT = { method: "sft", role: "student", model: "student@1", dataset: "digits", lora: { r: 4 } };
const LONG = { ...RLT_JOB, teacher: "teacher@1", hyperparameters: { ...RLT_JOB.hyperparameters, max_steps: 400 } };

/** A job that has saved something and waits. */
async function pausedJob(): Promise<TrainingJob> {
  const { id } = await order(LONG);
  await waitFor(server!, id, ({ progress }) => progress.step >= 1);
  await server!.post(`/v1/training/jobs/${id}/pause`, {});
  return waitFor(server!, id, ({ status }) => status === "paused");
}

test("a dataset with broken rows is refused as a whole, its first bad lines named", async () => {
  await start();
  const form = new FormData();
  form.set("file", new Blob(['{"question":"1","solution":"1"}\n{"question":2}\n{"question":"3"']), "rows.jsonl");
  const response = await fetch(`${server!.url}/v1/datasets`, { method: "POST", body: form });
  const { error } = (await response.json()) as { error: { code: string; lines: { line: number }[] } };
  expect([response.status, error.code]).toEqual([400, "invalid_dataset"]);
  expect(error.lines.map(({ line }) => line)).toEqual([2, 3]);
  expect((await server!.get<{ data: unknown[] }>("/v1/datasets")).data).toEqual([]);
});

test("a rank of 0 is refused with its path", async () => {
  await start();
  await registerBoth(server!);
  const refused = await server!.post<{ error: object }>("/v1/training/jobs", { ...RLT_JOB, lora: { r: 0 } }, 400);
  expect(refused.error).toMatchObject({ code: "invalid_value", param: "lora.r" });
});

describe("a student whose context is too short", () => {
  beforeEach(async () => {
    await start();
    await registerBoth(server!);
  });
  const register = async (context_length: number): Promise<void> => {
    await server!.post("/v1/students", { id: "short", model: "miniature", context_length });
  };

  test("is refused at once where the explanations alone are longer", async () => {
    await register(16);
    const job = { ...RLT_JOB, student: "short" };
    const { error } = await server!.post<{ error: { message: string } }>("/v1/training/jobs", job, 400);
    expect(error).toMatchObject({ code: "context_length_exceeded", param: "hyperparameters.max_completion_length" });
    expect(error.message).toMatch(/16 tokens of short's context/);
  });

  test("fails the job with the question that it could not read and what to do", async () => {
    await register(24);
    const { error, status } = await waitFor(server!, (await order({ ...RLT_JOB, student: "short" })).id);
    expect(status).toBe("failed");
    expect(error).toMatchObject({ code: "context_length_exceeded", param: "student" });
    expect(error!.message).toMatch(/explained of ".*": .* take \d+ tokens; .* 24\. .*longer context_length/);
  });

  test("fails sft with the row that is too long", async () => {
    await register(24);
    const { error } = await waitFor(server!, (await order({ ...SFT, model: "short" })).id);
    expect(error).toMatchObject({ code: "context_length_exceeded", param: "dataset" });
    expect(error!.message).toMatch(/row \d+ takes \d+ tokens and the model's context is 24/);
  });
});

test("a loss that is no number fails the job with its step and rows; what was saved before stays and can be forked", async () => {
  await start();
  await registerBoth(server!);
  // Each step makes the weights a thousand times larger.
  const wild = { learning_rate: 1, weight_decay: 1000, lr_scheduler_type: "constant", save_steps: 1, max_steps: 60 };
  const job = await waitFor(server!, (await order({ ...SFT, full: true, lora: undefined, hyperparameters: wild })).id);
  expect(job.status).toBe("failed");
  expect(job.error!.code).toBe("loss_not_finite");
  const [, step, rows] = /^step (\d+), rows ([\d, …]+) of the dataset: /.exec(job.error!.message)!;
  expect(rows!.split(", ").every((row) => row === "…" || (Number(row) >= 1 && Number(row) <= 12))).toBe(true);
  const [last] = await savedBy(job);
  expect(last!.step).toBe(Number(step) - 1);
  const fork = await server!.post<TrainingJob>(`/v1/training/jobs/${job.id}/fork`, {}, 201);
  expect(fork.config.from_checkpoint).toBe(last!.id);
}, 60_000);

describe("while a job is paused", () => {
  let paused: TrainingJob;
  beforeEach(async () => {
    await start();
    await registerBoth(server!);
    paused = await pausedJob();
  });
  async function resumed(): Promise<TrainingJob> {
    await server!.post(`/v1/training/jobs/${paused.id}/resume`, {});
    const job = await waitFor(server!, paused.id);
    expect(job.status).toBe("failed");
    // Nothing is lost: the checkpoints are still there.
    expect((await savedBy(paused)).map(({ step }) => step)[0]).toBe(paused.progress.step);
    return job;
  }
  const forkGoesOn = async (): Promise<void> => {
    const to = { hyperparameters: { max_steps: paused.progress.step + 1 } };
    const fork = await server!.post<TrainingJob>(`/v1/training/jobs/${paused.id}/fork`, to, 201);
    expect(await waitFor(server!, fork.id)).toMatchObject({ status: "succeeded" });
  };

  test("its data change: it goes on no more, a fork does", async () => {
    const rows = await Promise.all(
      Array.from({ length: 12 }, async (_, i) => (await memoryDatasets().open("digits")).row(i)),
    );
    const changed = { ...inMemory(rows.reverse()), contentHash: "sha256:other" };
    await start({ open: async () => changed });
    const { error } = await resumed();
    expect(error).toMatchObject({ code: "conflict" });
    expect(error!.message).toMatch(/the dataset has changed since this job began.*fork/);
    await forkGoesOn();
  }, 60_000);

  test("its model's directory is deleted: that is told, and put back it goes on", async () => {
    const directory = path.join(models.directory, "miniature");
    await rename(directory, `${directory}-gone`);
    await start();
    const { error } = await resumed();
    expect(error).toMatchObject({ code: "model_source_not_found" });
    expect(error!.message).toMatch(/miniature/);
    expect((await fetch(`${server!.url}/readyz`)).status).toBe(200);
    await rename(`${directory}-gone`, directory);
    await forkGoesOn();
  }, 60_000);

  test("its model's weights are replaced: it does not go on with others", async () => {
    const config = miniatureConfig("llama", { num_hidden_layers: 2 });
    const directory = path.join(models.directory, "miniature");
    await rm(directory, { recursive: true });
    await writeModel(directory, config, randomWeights(modelConfig(config), 2));
    await start();
    const { error } = await resumed();
    expect(error!.message).toMatch(/changed/);
  }, 60_000);
});

const disk = mountSmallDisk();
describe.skipIf(!disk)("a full disk (skipped where no file system can be mounted)", () => {
  test("fails the job with what to do; the last checkpoint stays, and with some space a fork goes on", async () => {
    try {
      disk!.resize(40 * MIB);
      await start(memoryDatasets(), { PRECEPTOR_ARTIFACTS: `file:${disk!.directory}` });
      await registerBoth(server!);
      const { id } = await order(LONG);
      await waitFor(server!, id, ({ progress }) => progress.step >= 2);
      await disk!.fill();
      const job = await waitFor(server!, id);
      expect(job.error).toMatchObject({ code: "insufficient_storage" });
      const [last] = await savedBy(job);
      expect(job.error!.message).toContain(last!.id);
      await disk!.empty();
      const to = { hyperparameters: { max_steps: last!.step + 1 } };
      const fork = await server!.post<TrainingJob>(`/v1/training/jobs/${id}/fork`, to, 201);
      expect(await waitFor(server!, fork.id)).toMatchObject({ status: "succeeded" });
    } finally {
      await server?.close();
      server = undefined;
      disk!.remove();
    }
  }, 60_000);
});
