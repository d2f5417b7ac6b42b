/** `train`, `jobs` and `worker`. */
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { TrainingJob } from "../../src/api/training/jobs/schemas.ts";
import { describePostgres } from "../db/databases.ts";
import { startPreceptor } from "../e2e/running.ts";
import { miniatureDirectory, RLT_JOB, registerBoth, waitFor } from "../e2e/training-fixture.ts";
import { type Answer, type FakeServer, fakeServer, json } from "./fake-server.ts";
import { runCli, startCli } from "./run-cli.ts";

let scratch = "";
let file = "";
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "preceptor-train-cli-"));
  file = join(scratch, "job.json");
  await writeFile(file, JSON.stringify(RLT_JOB));
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

const JOB = {
  id: "tjob_1",
  object: "training.job",
  method: "rlt",
  status: "running",
  wanted: null,
  finished_at: null,
  progress: { step: 2, total_steps: 3, eta_seconds: 90 },
  metrics: { reward: 0.123456 },
  config: { model: "teacher@1" },
};
const DONE = { ...JOB, status: "succeeded", finished_at: 5, progress: { step: 3, total_steps: 3, eta_seconds: 0 } };
const FAILED = { ...DONE, status: "failed", error: { message: "the disk is full" } };
const SUCCEEDED = { ...DONE, result: { teacher: "teacher@2", checkpoint: "ckpt_1" } };

let server: FakeServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});

/** Runs a command against a server that answers so. */
async function run(answer: Answer, ...args: string[]) {
  server = await fakeServer(answer);
  return { ...(await runCli(["--url", server.url, ...args])), seen: server.seen };
}
/** Looked at for the nth time, a job is the nth of these. */
function becoming(...states: object[]): Answer {
  let looks = 0;
  return ({ method }, response) =>
    method === "POST" ? json(response, 201, JOB) : json(response, 200, states[Math.min(looks++, states.length - 1)]);
}

describe("train", () => {
  it("queues what the file says, watches it to its end and tells what came of it", async () => {
    const { code, stdout, stderr, seen } = await run(becoming(JOB, SUCCEEDED), "train", file);
    expect([code, stdout]).toEqual([0, "tjob_1\n"]);
    expect(stderr).toContain("tjob_1 succeeded at step 3/3: teacher@2");
    expect(seen.map(({ method, path }) => `${method} ${path}`)).toEqual([
      "POST /v1/training/jobs",
      "GET /v1/training/jobs/tjob_1",
      "GET /v1/training/jobs/tjob_1",
    ]);
    expect(seen[0]!.body).toEqual(RLT_JOB);
  });

  it("exits with 1 and the reason where the job fails", async () => {
    const { code, stderr } = await run(becoming(FAILED), "train", file);
    expect(code).toBe(1);
    expect(stderr).toContain("tjob_1 failed: the disk is full");
  });

  it("--detach prints the id and looks no further", async () => {
    const { code, stdout, seen } = await run(becoming(JOB), "train", file, "--detach");
    expect([code, stdout, seen.length]).toEqual([0, "tjob_1\n", 1]);
  });

  it("what the server refuses is told", async () => {
    const error = {
      message: "student is required",
      type: "invalid_request_error",
      param: "student",
      code: "invalid_value",
    };
    const { code, stdout, stderr } = await run((_, response) => json(response, 400, { error }), "train", file);
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toContain("student is required");
  });

  it("a file that is not there or no JSON is a mistake in the command; the server is not asked", async () => {
    const broken = join(scratch, "broken.json");
    await writeFile(broken, "{");
    for (const [name, reason] of [
      [join(scratch, "none.json"), "cannot be read (ENOENT)"],
      [broken, "is not JSON"],
    ] as const) {
      const { code, stderr, seen } = await run(becoming(JOB), "train", name);
      expect([code, seen.length]).toEqual([2, 0]);
      expect(stderr).toContain(reason);
    }
  });
});

const DISTILLATION = {
  ...JOB,
  id: "djob_1",
  object: "distillation.job",
  created_at: 9,
  progress: { stage: "generate", part: null, questions: 5, total_questions: 30, accepted: 4, eta_seconds: 61 },
  config: { teacher: "teacher@2" },
  output_dataset: null,
};
const EVALUATION = {
  ...JOB,
  id: "eval_1",
  object: "evaluation",
  created_at: 8,
  student: "student@3",
  progress: { step: 2, total_steps: 7, eta_seconds: null },
};
const page = (data: object[]) => ({ object: "list", data });

describe("jobs", () => {
  it("lists those of all kinds as a table and as JSON, the newest first", async () => {
    const training = [
      { ...JOB, created_at: 7 },
      { ...SUCCEEDED, id: "tjob_2", created_at: 6, config: { model: "evil\u001b[2J@1" } },
    ];
    const answer: Answer = ({ path }, response) => {
      const found = { training, distillation: [DISTILLATION], evaluations: [EVALUATION] };
      const [name] = /training|distillation|evaluations/.exec(path) as unknown as [keyof typeof found];
      json(response, 200, page(found[name]));
    };
    const table = await run(answer, "jobs", "list");
    expect(table.stdout).toMatch(
      /djob_1\s+distil\s+running\s+5\/30\s+teacher@2\s+eval_1\s+evaluate\s+running\s+2\/7\s+student@3/,
    );
    expect(table.stdout).toMatch(/tjob_1\s+rlt\s+running\s+2\/3\s+teacher@1/);
    expect(table.stdout).toMatch(/tjob_2\s+rlt\s+succeeded\s+3\/3/);
    expect(table.stdout).not.toContain("\u001b[2J");
    await server?.close();
    const { stdout } = await run(answer, "jobs", "list", "--json");
    expect((JSON.parse(stdout) as TrainingJob[]).map(({ id }) => id)).toEqual(["djob_1", "eval_1", "tjob_1", "tjob_2"]);
    await server?.close();
    const none = await run((_, response) => json(response, 200, { object: "list", data: [] }), "jobs", "list");
    expect([none.code, none.stdout]).toEqual([0, ""]);
    expect(none.stderr).toContain("No jobs");
  });

  it("shows one, and watches one to its end", async () => {
    const shown = await run(becoming(JOB), "jobs", "show", "tjob_1");
    expect(JSON.parse(shown.stdout)).toEqual(JOB);
    await server?.close();
    expect((await run(becoming(JOB, FAILED), "jobs", "watch", "tjob_1")).code).toBe(1);
  });

  it("asks the routes of its kind, by its id, and tells how each kind ended", async () => {
    const distilled = {
      ...DISTILLATION,
      status: "succeeded",
      finished_at: 5,
      output_dataset: "ds_9",
      result: { student: "student@4" },
    };
    const one = await run(becoming(DISTILLATION, distilled), "jobs", "watch", "djob_1");
    expect([one.code, one.stderr]).toEqual([0, "djob_1 succeeded with 4 rows: ds_9, student@4\n"]);
    expect(one.seen.map(({ path }) => path)).toEqual(Array(2).fill("/v1/distillation/jobs/djob_1"));
    await server?.close();
    const measured = { ...EVALUATION, status: "succeeded", finished_at: 5, result: { accuracy: 0.75 } };
    const other = await run(becoming(EVALUATION, measured), "jobs", "watch", "eval_1");
    expect([other.code, other.stderr]).toEqual([0, "eval_1 succeeded at row 2/7: accuracy 0.750\n"]);
    expect(other.seen[0]!.path).toBe("/v1/evaluations/eval_1");
  });

  it.each(["cancel", "pause", "resume"])("%s asks for it and says how the job stands", async (verb) => {
    const wanted = verb === "resume" ? null : verb;
    const answer: Answer = (_, response) => json(response, 200, { ...JOB, wanted });
    const { code, stderr, seen } = await run(answer, "jobs", verb, "a/b");
    expect(code).toBe(0);
    expect(seen.map(({ method, path }) => `${method} ${path}`)).toEqual([`POST /v1/training/jobs/a%2Fb/${verb}`]);
    expect(stderr).toContain(wanted ? `tjob_1 is running (${verb} at its next step)` : "tjob_1 is running\n");
  });

  it("one that is not there is told, with 1", async () => {
    const error = { message: "there is no such training job", type: "not_found_error", param: null, code: "not_found" };
    const { code, stderr } = await run((_, response) => json(response, 404, { error }), "jobs", "show", "tjob_0");
    expect(code).toBe(1);
    expect(stderr).toContain("there is no such training job");
  });
});

describe("worker", () => {
  it("needs a database that others can reach", async () => {
    const { code, stderr } = await runCli(["worker", "--data-dir", join(scratch, "data")]);
    expect(code).toBe(2);
    expect(stderr).toContain("set DATABASE_URL");
  });
});

describePostgres("a worker beside a server", (databaseUrl) => {
  it("runs the jobs that the server leaves to it, and gives its job back when it is ended", async () => {
    const models = await miniatureDirectory();
    const env = { DATABASE_URL: databaseUrl(), PRECEPTOR_MODELS_DIRS: models.directory, PRECEPTOR_THREADS: "1" };
    const api = await startPreceptor(env, undefined, { role: "api" });
    const worker = startCli(["worker", "--data-dir", api.dataDir], { env });
    const ended = once(worker, "close");
    worker.stdout.resume();
    worker.stderr.resume();
    try {
      await registerBoth(api);
      const rows = Array.from({ length: 12 }, (_, i) => ({ question: `${i} + 1`, solution: String(i + 1) }));
      const { id: dataset } = await api.post<{ id: string }>("/v1/datasets", { rows });
      const order = (max_steps: number) =>
        api.post<TrainingJob>("/v1/training/jobs", {
          ...RLT_JOB,
          teacher: "teacher@1",
          dataset,
          hyperparameters: { ...RLT_JOB.hyperparameters, max_steps },
        });
      const { id } = await order(2);
      expect(await waitFor(api, id)).toMatchObject({ status: "succeeded", result: { teacher: "teacher@2" } });
      const long = await order(1000);
      await waitFor(api, long.id, ({ progress }) => progress.step >= 1);
      worker.kill("SIGTERM");
      expect((await ended)[0]).toBe(0);
      expect(await api.get(`/v1/training/jobs/${long.id}`)).toMatchObject({ status: "queued" });
    } finally {
      worker.kill("SIGKILL");
      await ended;
      await api.close();
      await models.remove();
    }
  });
});
