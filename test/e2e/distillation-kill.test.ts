/**
 * A server that is killed again and again while it distils: exactly the promised rows, none twice, the same as in peace.
 * `QUESTIONS=2000 KILLS=10 npx vitest run test/e2e/distillation-kill.test.ts` is the whole of it; the suite asks fewer.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { DistillationJob } from "../../src/api/distillation/schemas.ts";
import { derivedSeed } from "../../src/train/seeds.ts";
import { describePostgres } from "../db/databases.ts";
import { takeTasks } from "../miniature/tasks.ts";
import { end, listening, type Server, type ServerSetting, startServer } from "./killable.ts";
import { miniatureDirectory, registerBoth } from "./training-fixture.ts";

const QUESTIONS = Number(process.env.QUESTIONS ?? 100);
const KILLS = Number(process.env.KILLS ?? 1);
const SEED = Number(process.env.KILL_SEED ?? 1);
const LEASE_MS = 2_000;
/** A kill comes at most so long after a few more questions were done. */
const LATEST_MS = 400;

let models: Awaited<ReturnType<typeof miniatureDirectory>>;
const directories: string[] = [];
beforeAll(async () => {
  models = await miniatureDirectory();
});
afterAll(async () => {
  for (const directory of directories) await rm(directory, { recursive: true, force: true });
  await models?.remove();
});

async function newSetting(databaseUrl: string): Promise<ServerSetting> {
  const dataDir = await mkdtemp(path.join(tmpdir(), "preceptor-distil-kill-"));
  directories.push(dataDir);
  return { models: models.directory, dataDir, databaseUrl, leaseMs: LEASE_MS, datasets: "own" };
}

async function order(server: Server): Promise<string> {
  await registerBoth(server);
  const rows = takeTasks(QUESTIONS, { seed: 5 }).map(({ question, solution }, i) => ({
    id: `q${i}`,
    question,
    solution,
  }));
  const { id: dataset } = await server.post<{ id: string }>("/v1/datasets", { rows });
  const { id } = await server.post<DistillationJob>("/v1/distillation/jobs", {
    teacher: "teacher",
    student: "student",
    dataset,
    samples_per_question: 2,
    select: "all",
    dedupe: true,
    well_formed: false,
    // All but the last few are needed.
    target_rows: Math.floor(1.6 * QUESTIONS),
    max_tokens: 12,
    seed: 8,
  });
  return id;
}

async function until(server: Server, id: string, done: (job: DistillationJob) => boolean): Promise<DistillationJob> {
  const deadline = performance.now() + 300_000;
  for (;;) {
    const job = await server.get<DistillationJob>(`/v1/distillation/jobs/${id}`);
    if (done(job) || job.finished_at !== null) return job;
    if (performance.now() > deadline) throw new Error(`not so: ${JSON.stringify(job)}`);
    await delay(30);
  }
}

/** All rows, but for the job's own name. */
async function outcomeOf(server: Server, { id, output_dataset, error_dataset, result }: DistillationJob) {
  const read = async (dataset: string | null): Promise<unknown[]> => {
    const rows: Record<string, unknown>[] = [];
    for (let more = dataset !== null; more; ) {
      const page = await server.get<{ data: Record<string, unknown>[]; has_more: boolean }>(
        `/v1/datasets/${dataset}/rows?limit=100${rows.length > 0 ? `&after=${rows.length - 1}` : ""}`,
      );
      rows.push(...page.data);
      more = page.has_more;
    }
    return rows.map(({ provenance, ...row }) => ({ ...row, provenance: { ...(provenance as object), job: "" } }));
  };
  const { output_dataset: _, error_dataset: __, ...figures } = result as Record<string, unknown>;
  expect(id).toMatch(/^djob_/);
  return { figures, accepted: await read(output_dataset), rejected: await read(error_dataset) };
}

let peaceful: ReturnType<typeof outcomeOf> | undefined;
const undisturbed = (): ReturnType<typeof outcomeOf> => (peaceful ??= runInPeace());

async function runInPeace(): ReturnType<typeof outcomeOf> {
  const setting = await newSetting("");
  const server = await listening(startServer(setting));
  const job = await until(server, await order(server), () => false);
  expect(job).toMatchObject({ status: "succeeded", attempts: 1 });
  const outcome = await outcomeOf(server, job);
  await end(server);
  return outcome;
}

async function killed(databaseUrl: string): Promise<void> {
  const setting = await newSetting(databaseUrl);
  let server = await listening(startServer(setting));
  const id = await order(server);
  for (let kill = 0; kill < KILLS; kill++) {
    const { progress } = await server.get<DistillationJob>(`/v1/distillation/jobs/${id}`);
    const share = Math.floor(QUESTIONS / (2 * (KILLS + 1)));
    const job = await until(server, id, (now) => now.progress.questions >= progress.questions + share);
    expect(job.finished_at).toBeNull();
    await delay((LATEST_MS * derivedSeed(SEED, kill)) / 2 ** 32);
    server.child.process.kill("SIGKILL");
    await server.child.exited;
    server = await listening(startServer(setting));
  }
  const job = await until(server, id, () => false);
  expect(job.error).toBeUndefined();
  expect(job).toMatchObject({ status: "succeeded" });
  expect(job.attempts).toBeGreaterThan(KILLS / 2);
  expect(await outcomeOf(server, job)).toEqual(await undisturbed());
  await end(server);
}

const LIMIT_MS = 60_000 + 60_000 * KILLS;

test(
  "PGlite: the rows of a job that is killed are those of one that is not",
  async () => {
    const { accepted } = await undisturbed();
    expect(accepted.length).toBe(Math.floor(1.6 * QUESTIONS));
    await killed("");
  },
  LIMIT_MS,
);

describePostgres("a killed server on PostgreSQL", (url) => {
  test("the rows of a job that is killed are those of one that is not", () => killed(url()), LIMIT_MS);
});
