/** A server with an untrained miniature in both roles and a dataset in memory, and what tests do with its jobs. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { JobEventResource } from "../../src/api/jobs/schemas.ts";
import type { TrainingJob } from "../../src/api/training/jobs/schemas.ts";
import { fail } from "../../src/errors.ts";
import type { DatasetSource } from "../../src/train/datasets.ts";
import type { TrainingDataset, TrainingRow } from "../../src/train/job-deps.ts";
import { shuffled } from "../../src/train/seeds.ts";
import { STUDENT_FORMAT, TEACHER_FORMAT } from "../miniature/formats.ts";
import { miniatureConfig, modelConfig, randomWeights, writeModel } from "../miniature/model.ts";
import { takeTasks } from "../miniature/tasks.ts";

/** `digits`: with traces; `bare`: without. */
export function memoryDatasets(): DatasetSource {
  const rows: TrainingRow[] = takeTasks(12, { seed: 3 }).map(({ question, solution, explanation }) => ({
    question,
    solution,
    reasoning_trace: explanation,
  }));
  const bare = rows.map(({ reasoning_trace, ...row }, i) => (i < 4 ? { ...row, reasoning_trace } : row));
  const datasets: Record<string, TrainingDataset> = {
    digits: inMemory(rows),
    bare: inMemory(bare),
    empty: inMemory([]),
  };
  return {
    async open(id) {
      const found = datasets[id];
      if (!found) throw fail("not_found", `no dataset ${JSON.stringify(id)} exists here`, { param: "dataset" });
      return found;
    },
  };
}

export function inMemory(rows: readonly TrainingRow[]): TrainingDataset {
  return {
    contentHash: `sha256:${rows.length}`,
    count: rows.length,
    row: async (index) => rows[index]!,
    async split(heldOut, seed) {
      const order = shuffled(rows.length, seed);
      const held = Math.floor(heldOut * rows.length);
      return { heldOut: order.slice(0, held), train: order.slice(held) };
    },
  };
}

/** A models directory with the miniature. */
export async function miniatureDirectory(): Promise<{ directory: string; remove(): Promise<void> }> {
  const directory = await mkdtemp(path.join(tmpdir(), "preceptor-training-"));
  const config = miniatureConfig("llama", { num_hidden_layers: 2 });
  await writeModel(path.join(directory, "miniature"), config, randomWeights(modelConfig(config), 1));
  return { directory, remove: () => rm(directory, { recursive: true, force: true }) };
}

export interface Http {
  post<T = never>(route: string, body: unknown, status?: number): Promise<T>;
  get<T = never>(route: string, status?: number): Promise<T>;
}

export async function registerBoth(server: Http): Promise<void> {
  const common = { model: "miniature", context_length: 256 };
  await server.post("/v1/teachers", { id: "teacher", format: TEACHER_FORMAT, ...common });
  await server.post("/v1/students", { id: "student", format: STUDENT_FORMAT, ...common });
}

/** 3 steps of 2 questions × 4. */
export const RLT_JOB = {
  method: "rlt",
  teacher: "teacher",
  student: "student",
  dataset: "digits",
  hyperparameters: {
    max_steps: 3,
    per_device_train_batch_size: 4,
    gradient_accumulation_steps: 2,
    num_generations: 4,
    max_completion_length: 24,
    learning_rate: 0.01,
    save_steps: 1,
  },
  lora: { r: 4, lora_alpha: 8 },
  seed: 7,
};

export async function waitFor(
  server: Http,
  id: string,
  done: (job: TrainingJob) => boolean = ({ finished_at }) => finished_at !== null,
  timeoutMs = 60_000,
): Promise<TrainingJob> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const job = await server.get<TrainingJob>(`/v1/training/jobs/${id}`);
    if (done(job)) return job;
    if (job.finished_at !== null || performance.now() > deadline) throw new Error(`not so: ${JSON.stringify(job)}`);
    await delay(50);
  }
}

export async function eventsOfJob(server: Http, base: string, id: string): Promise<JobEventResource[]> {
  const all: JobEventResource[] = [];
  for (;;) {
    const route = `${base}/${id}/events?limit=1000&after=${all.length}`;
    const { data, has_more } = await server.get<{ data: JobEventResource[]; has_more: boolean }>(route);
    all.push(...data);
    if (!has_more) return all;
  }
}

export const eventsOf = (server: Http, id: string): Promise<JobEventResource[]> =>
  eventsOfJob(server, "/v1/training/jobs", id);

/** What must not depend on how often a job was interrupted: no seconds. */
export async function trailOf(server: Http, id: string) {
  const { data } = await server.get<{ data: Record<string, { step: number; value: number | null }[]> }>(
    `/v1/training/jobs/${id}/metrics`,
  );
  const metrics = Object.fromEntries(Object.entries(data).filter(([name]) => !/time/.test(name)));
  const samples = new Map<string, unknown>();
  for (const { type, data } of await eventsOf(server, id)) {
    if (type !== "job.sample") continue;
    const sample = data as { step: number; completion: string };
    samples.set(`${sample.step} ${sample.completion}`, sample);
  }
  return { metrics, samples: [...samples].sort(([a], [b]) => (a < b ? -1 : 1)) };
}
