/** A server that is killed in the middle of a job: the next one ends it, and nobody can tell from the numbers. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { CheckpointDetail } from "../../src/api/checkpoints/schemas.ts";
import type { TrainingJob } from "../../src/api/training/jobs/schemas.ts";
import { type Child, startChild } from "../db/child.ts";
import { describePostgres } from "../db/databases.ts";
import {
  eventsOf,
  type Http,
  miniatureDirectory,
  RLT_JOB,
  registerBoth,
  trailOf,
  waitFor,
} from "./training-fixture.ts";

let models: Awaited<ReturnType<typeof miniatureDirectory>>;
const directories: string[] = [];
beforeAll(async () => {
  models = await miniatureDirectory();
});
afterAll(async () => {
  for (const directory of directories) await rm(directory, { recursive: true, force: true });
  await models?.remove();
});

const LONG_JOB = { ...RLT_JOB, hyperparameters: { ...RLT_JOB.hyperparameters, max_steps: 30, save_steps: 4 } };

interface Server extends Http {
  child: Child;
}

async function startServer(dataDir: string, databaseUrl: string): Promise<Server> {
  const child = startChild("../../e2e/children/training-server.ts", [models.directory, dataDir, databaseUrl]);
  const url = (await child.line((line) => line.startsWith("url "))).slice("url ".length);
  const call = async (route: string, init: RequestInit): Promise<never> => {
    const response = await fetch(url + route, init);
    const text = await response.text();
    if (!response.ok) throw new Error(`${route}: ${response.status} ${text}`);
    return JSON.parse(text) as never;
  };
  return {
    child,
    get: (route) => call(route, {}),
    post: (route, body) =>
      call(route, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) }),
  };
}

async function newDirectory(): Promise<string> {
  const directory = await mkdtemp(path.join(tmpdir(), "preceptor-kill-"));
  directories.push(directory);
  return directory;
}

async function end({ child }: Server): Promise<void> {
  child.process.stdin.end();
  await child.exited;
}

async function weightsOf(server: Http, job: TrainingJob): Promise<string> {
  return (await server.get<CheckpointDetail>(`/v1/checkpoints/${job.result!.checkpoint}`)).weights_hash;
}

/** Runs the job twice: once in peace, once with two kills; compares all that came of it. */
async function compare(databaseUrl: string, fresh: () => string): Promise<void> {
  const dataDir = await newDirectory();
  let server = await startServer(dataDir, databaseUrl);
  await registerBoth(server);
  const { id } = await server.post<TrainingJob>("/v1/training/jobs", LONG_JOB);
  for (const step of [2, 9]) {
    await waitFor(server, id, ({ progress }) => progress.step >= step);
    server.child.process.kill("SIGKILL");
    await server.child.exited;
    server = await startServer(dataDir, databaseUrl);
  }
  const job = await waitFor(server, id, undefined, 120_000);
  expect(job).toMatchObject({ status: "succeeded", attempts: 3, progress: { step: 30 } });
  const events = await eventsOf(server, id);
  expect(events.map(({ sequence_number: n }) => n)).toEqual(events.map((_, i) => i + 1));
  expect(events.filter(({ type }) => type === "job.warning")).toHaveLength(2);
  const disturbed = { trail: await trailOf(server, id), weights: await weightsOf(server, job) };
  await end(server);

  const peaceful = await startServer(await newDirectory(), fresh());
  if (fresh() === "") await registerBoth(peaceful);
  const other = await peaceful.post<TrainingJob>("/v1/training/jobs", { ...LONG_JOB, teacher: "teacher@1" });
  const ended = await waitFor(peaceful, other.id);
  expect(ended.attempts).toBe(1);
  expect(disturbed.trail).toEqual(await trailOf(peaceful, other.id));
  expect(disturbed.weights).toBe(await weightsOf(peaceful, ended));
  await end(peaceful);
}

test("on PGlite it goes on at the next start", () => compare("", () => ""), 180_000);

describePostgres("a killed server", (url) => {
  // The lease of the dead is half a minute.
  test("on PostgreSQL it goes on when the lease of the dead has run out", () => compare(url(), () => ""), 300_000);
});
