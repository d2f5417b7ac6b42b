/**
 * A server that is killed again and again in the middle of a job: it goes on by itself, and nobody can tell from the numbers.
 * `KILLS=20 npx vitest run test/e2e/training-kill.test.ts` is the whole of it, a few minutes; the suite kills less often.
 */
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { CheckpointDetail } from "../../src/api/checkpoints/schemas.ts";
import type { TrainingJob } from "../../src/api/training/jobs/schemas.ts";
import type { SampleReport } from "../../src/train/run.ts";
import { derivedSeed } from "../../src/train/seeds.ts";
import type { Child } from "../db/child.ts";
import { describePostgres } from "../db/databases.ts";
import { end, listening, startServer } from "./killable.ts";
import {
  eventsOf,
  type Http,
  miniatureDirectory,
  RLT_JOB,
  registerBoth,
  trailOf,
  waitFor,
} from "./training-fixture.ts";

const KILLS = Number(process.env.KILLS ?? 2);
const SEED = Number(process.env.KILL_SEED ?? 1);
/**
 * When kills come, at most so long after the process starts (one in four), after it listens (one in four: the job's models are
 * being loaded), and after the job has got one step further (half of them: in the midst of a step, of a checkpoint).
 */
const MOMENTS = { start: 2_000, listens: 2_000, steps: 400 } as const;
/** Long enough for a busy machine's heartbeats, over before the next server is up. */
const LEASE_MS = 2_000;
/** Enough that none of the kills comes after the end. */
const JOB = { ...RLT_JOB, hyperparameters: { ...RLT_JOB.hyperparameters, max_steps: 10 + 10 * KILLS, save_steps: 4 } };

let models: Awaited<ReturnType<typeof miniatureDirectory>>;
const directories: string[] = [];
beforeAll(async () => {
  models = await miniatureDirectory();
});
afterAll(async () => {
  for (const directory of directories) await rm(directory, { recursive: true, force: true });
  await models?.remove();
});

const start = (dataDir: string, databaseUrl: string): Child =>
  startServer({ models: models.directory, dataDir, databaseUrl, leaseMs: LEASE_MS, datasets: "memory" });

async function newDirectory(): Promise<string> {
  const directory = await mkdtemp(path.join(tmpdir(), "preceptor-kill-"));
  directories.push(directory);
  return directory;
}

/** All that must not depend on kills. */
async function outcomeOf(server: Http, dataDir: string, job: TrainingJob) {
  const { weights_hash: weights } = await server.get<CheckpointDetail>(`/v1/checkpoints/${job.result!.checkpoint}`);
  const files = path.join(dataDir, "artifacts");
  const folder = path.join(files, "checkpoints", job.result!.checkpoint!);
  const bytes = await Promise.all(
    ["adapter_model.safetensors", "optimizer.safetensors"].map((name) => readFile(path.join(folder, name), "base64")),
  );
  const lines = (await readFile(path.join(files, "jobs", job.id, "metrics.jsonl"), "utf8")).trimEnd().split("\n");
  const steps = lines.map((line) => (JSON.parse(line) as { step: number }).step);
  return { weights, bytes, steps, trail: await trailOf(server, job.id), samples: await samplesOf(server, job.id) };
}

/** By step, in order. Those of a step that was done again stand there twice, and must be the same. */
async function samplesOf(server: Http, id: string): Promise<SampleReport[][]> {
  const events = await eventsOf(server, id);
  const samples = events.flatMap(({ type, data }) => (type === "job.sample" ? [data as SampleReport] : []));
  return Array.from({ length: JOB.hyperparameters.max_steps }, (_, i) => {
    const ofStep = samples.filter(({ step }) => step === i + 1);
    return ofStep.filter((one, k) => ofStep.findIndex((other) => same(one, other)) === k);
  });
}

const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

/** What the job comes to where nobody disturbs it. */
let peaceful: ReturnType<typeof outcomeOf> | undefined;
const undisturbed = (): ReturnType<typeof outcomeOf> => (peaceful ??= runInPeace());

async function runInPeace(): ReturnType<typeof outcomeOf> {
  const dataDir = await newDirectory();
  const server = await listening(start(dataDir, ""));
  await registerBoth(server);
  const { id } = await server.post<TrainingJob>("/v1/training/jobs", { ...JOB, teacher: "teacher@1" });
  const job = await waitFor(server, id, undefined, 300_000);
  expect(job).toMatchObject({ status: "succeeded", attempts: 1 });
  const outcome = await outcomeOf(server, dataDir, job);
  await end(server);
  return outcome;
}

/** In [0, 1). */
const chance = (kill: number, what: number): number => derivedSeed(SEED, kill, what) / 2 ** 32;

async function killed(databaseUrl: string): Promise<void> {
  const dataDir = await newDirectory();
  let server = await listening(start(dataDir, databaseUrl));
  await registerBoth(server);
  const { id } = await server.post<TrainingJob>("/v1/training/jobs", JOB);
  let { child } = server;
  for (let kill = 0; kill < KILLS; kill++) {
    const moment = (["start", "listens", "steps", "steps"] as const)[Math.floor(4 * chance(kill, 0))]!;
    if (moment !== "start") server = await listening(child);
    if (moment === "steps") {
      const { progress } = await server.get<TrainingJob>(`/v1/training/jobs/${id}`);
      await waitFor(server, id, (job) => job.status === "running" && job.progress.step > progress.step);
    }
    await delay(chance(kill, 1) * MOMENTS[moment]);
    child.process.kill("SIGKILL");
    await child.exited;
    child = start(dataDir, databaseUrl);
  }
  server = await listening(child);
  const job = await waitFor(server, id, undefined, 300_000);
  expect(job.error).toBeUndefined();
  expect(job).toMatchObject({ status: "succeeded", progress: { step: JOB.hyperparameters.max_steps } });
  const events = await eventsOf(server, id);
  expect(events.map(({ sequence_number: n }) => n)).toEqual(events.map((_, i) => i + 1));
  const lost = events.filter(({ type }) => type === "job.warning");
  const again = events.filter(({ type }) => type === "job.metrics").length - JOB.hyperparameters.max_steps;
  console.info(`${KILLS} kills, ${lost.length} of a server that held the job, ${again} steps done again`);
  // The kills that hit the job are told, and it was taken up after each.
  expect(lost.length).toBeGreaterThan(0);
  expect(job.attempts).toBe(lost.length + 1);
  // Nothing of the dead is left lying about; of a shared database others may be alive.
  expect(await readdir(path.join(dataDir, "tmp"))).toHaveLength(1);
  const folders = await readdir(path.join(dataDir, "artifacts", "checkpoints"));
  if (databaseUrl === "") expect(folders.filter((name) => !name.startsWith("ckpt_"))).toEqual([]);
  expect(await outcomeOf(server, dataDir, job)).toEqual(await undisturbed());
  await end(server);
}

test("on PGlite it goes on at the next start", () => killed(""), 1_200_000);

describePostgres("a killed server", (url) => {
  test("on PostgreSQL it goes on when the lease of the dead has run out", () => killed(url()), 1_200_000);
});
