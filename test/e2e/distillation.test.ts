/** Distillation through the front door: rows in, explanations by an untrained miniature, datasets out. */
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { DatasetResource } from "../../src/api/datasets/schemas.ts";
import type { DistillationJob, LiveRows } from "../../src/api/distillation/schemas.ts";
import { takeTasks } from "../miniature/tasks.ts";
import { type Running, startPreceptor } from "./running.ts";
import { eventsOfJob, miniatureDirectory, registerBoth } from "./training-fixture.ts";

let models: Awaited<ReturnType<typeof miniatureDirectory>>;
let server: Running;
let dataset: string;
beforeAll(async () => {
  models = await miniatureDirectory();
  server = await startPreceptor({ PRECEPTOR_MODELS_DIRS: models.directory, PRECEPTOR_THREADS: "1" });
  await registerBoth(server);
  const rows = takeTasks(30, { seed: 9 }).map(({ question, solution, explanation }, i) => ({
    id: `task-${i}`,
    question,
    solution,
    reasoning_trace: explanation,
    metadata: { number: i, nested: { even: i % 2 === 0 } },
  }));
  ({ id: dataset } = await server.post<DatasetResource>("/v1/datasets", { rows, name: "tasks" }, 201));
});
afterAll(async () => {
  await server?.close();
  await models?.remove();
});

const job = (changes: object = {}) => ({
  teacher: "teacher",
  student: "student",
  dataset,
  samples_per_question: 3,
  max_tokens: 16,
  well_formed: false,
  seed: 4,
  ...changes,
});
const start = (changes?: object): Promise<DistillationJob> => server.post("/v1/distillation/jobs", job(changes), 201);
const rowsOf = async (id: string | null) =>
  (await server.get<{ data: Record<string, unknown>[] }>(`/v1/datasets/${id}/rows?limit=100`)).data;

async function ended(id: string): Promise<DistillationJob> {
  for (let i = 0; i < 1_200; i++) {
    const now = await server.get<DistillationJob>(`/v1/distillation/jobs/${id}`);
    if (now.finished_at !== null) return now;
    await delay(50);
  }
  throw new Error("the job did not end");
}

describe("distillation over HTTP", () => {
  it("ends in a dataset of the best explanations, with everything that can be asked about a row", async () => {
    const created = await start({ name: "distilled", metadata: { run: "1" } });
    expect(created).toMatchObject({
      object: "distillation.job",
      status: "queued",
      seed: 4,
      metadata: { run: "1" },
      output_dataset: null,
      config: { teacher: "teacher@1", student: "student@1", select: { rule: "best", where: null }, preview: null },
    });
    const done = await ended(created.id);
    expect(done.error).toBeUndefined();
    expect(done).toMatchObject({
      status: "succeeded",
      progress: { questions: 30, total_questions: 30, percent: 100, accepted: 30, rejected: { not_chosen: 60 } },
      result: { accepted: 30, questions_used: 30, ended_by: "questions_used" },
    });
    const head = await server.get<DatasetResource>(`/v1/datasets/${done.output_dataset}`);
    expect(head).toMatchObject({
      name: "distilled",
      rows: 30,
      source: { type: "job", job: done.id, part: "output", dataset, teacher: "teacher@1", student: "student@1" },
    });
    const [row] = await rowsOf(done.output_dataset);
    expect(row).toMatchObject({
      id: "task-0",
      metadata: { number: 0, nested: { even: true } },
      reasoning_trace: expect.any(String),
      provenance: {
        job: done.id,
        row: 0,
        attempts: 3,
        teacher: "teacher@1",
        student: "student@1",
        seed: expect.any(Number),
        sampling: { temperature: 0.7, top_p: 1, top_k: 0, max_tokens: 16 },
        score: { reward: expect.any(Number), "kl.mean": expect.any(Number), uplift: expect.any(Number) },
      },
    });
    const rejected = await rowsOf(done.error_dataset);
    expect(rejected.every(({ provenance }) => (provenance as { reason: string }).reason === "not_chosen")).toBe(true);
    const events = await eventsOfJob(server, "/v1/distillation/jobs", done.id);
    expect(events.map(({ type }) => type)).toContain("job.sample");
    expect(events.at(-1)).toMatchObject({ type: "job.completed", object: "distillation.job.event" });
  });

  it("the student finds a row's solution as likely over /v1/scores as the job says", async () => {
    const done = await ended((await start({ preview: 2, samples_per_question: 1 })).id);
    const [row] = await rowsOf(done.output_dataset);
    const {
      question,
      solution,
      reasoning_trace: explanation,
      provenance,
    } = row as Record<string, string> & {
      provenance: { score: Record<string, number>; violations: string[] };
    };
    const closed = provenance.violations.includes("missing_closing_tag")
      ? { completion: explanation }
      : { explanation };
    const body = {
      student: "student",
      teacher: "teacher",
      items: [{ question, solution, ...closed }],
      include: ["baseline"],
    };
    const { data } = await server.post<{
      data: [
        { reward: number; solution: { logprob_mean: number }; kl: { mean: number }; baseline: { uplift: number } },
      ];
    }>("/v1/scores", body);
    expect(data[0].solution.logprob_mean).toBeCloseTo(provenance.score["solution.logprob_mean"]!, 4);
    expect(data[0].baseline.uplift).toBeCloseTo(provenance.score.uplift!, 4);
  });

  it("shows its rows while it runs, pauses, and goes on", async () => {
    const whole = await ended((await start()).id);
    const { id } = await start();
    const live = (query = ""): Promise<LiveRows> => server.get(`/v1/distillation/jobs/${id}/rows${query}`);
    await server.post(`/v1/distillation/jobs/${id}/pause`, {}, 200);
    for (let i = 0; i < 600; i++) {
      if ((await server.get<DistillationJob>(`/v1/distillation/jobs/${id}`)).status === "paused") break;
      await delay(50);
    }
    const before = await live("?limit=100");
    await server.post(`/v1/distillation/jobs/${id}/resume`, {}, 200);
    const done = await ended(id);
    const after = await live("?limit=100");
    const texts = ({ data }: LiveRows) =>
      data.map(({ number, question, reasoning_trace }) => [number, question, reasoning_trace]);
    expect(texts(after).slice(0, before.data.length)).toEqual(texts(before));
    expect(texts(after).map(([, ...text]) => text)).toEqual(
      (await rowsOf(whole.output_dataset)).map(({ question, reasoning_trace }) => [question, reasoning_trace]),
    );
    expect(done.status).toBe("succeeded");
    const page = await live("?after=3&limit=2");
    expect(page).toMatchObject({ data: [{ number: 4 }, { number: 5 }], has_more: true });
    expect((await live("?part=rejected&limit=1")).data[0]).toMatchObject({ provenance: { reason: "not_chosen" } });
  });

  it("is told in one page: by itself, by the rows that came of it, and while it is paused", async () => {
    const page = async (route: string) => {
      const response = await fetch(`${server.url}${route}`);
      expect(response.status).toBe(200);
      expect(response.headers.get("content-type")).toBe("text/html; charset=UTF-8");
      expect(response.headers.get("content-security-policy")).toMatch(/^default-src 'none'; style-src 'sha256-/);
      return await response.text();
    };
    const done = await ended((await start({ name: "told" })).id);
    const job = await page(`/v1/distillation/jobs/${done.id}/report`);
    expect(job).toContain("<b>succeeded</b>: 30 rows from 30 of 30 questions, ended by questions used.");
    for (const part of ["teacher@1", "student@1", dataset, done.output_dataset!, done.error_dataset!, "kl.mean"]) {
      expect(job).toContain(part);
    }
    expect(job).toMatch(/<code>not_chosen<\/code><\/th><td class="number">60</);
    // Tokens with their numbers, in the explanation and in the solution.
    expect(job).toMatch(
      /<h4>Explanation<\/h4><pre class="painted"><span class="s\d" title="−log p [\d.]+ · p [^"]+ · KL/,
    );
    expect(job).toMatch(/<h4>Solution<\/h4><pre class="painted"><span class="s\d" title="−log p/);
    const rows = await page(`/v1/datasets/${done.output_dataset}/report`);
    expect(rows.match(/<details/g)).toHaveLength(20);
    expect(rows).toContain(done.id);
    expect(await page(`/v1/datasets/${done.error_dataset}/report`)).toContain("<code>not_chosen</code>");
    const uploaded = await page(`/v1/datasets/${dataset}/report`);
    expect(uploaded).toContain("Histogram: question");
    expect(uploaded).not.toContain("Best rows");
    const { id } = await start();
    await server.post(`/v1/distillation/jobs/${id}/pause`, {}, 200);
    for (let i = 0; i < 600; i++) {
      if ((await server.get<DistillationJob>(`/v1/distillation/jobs/${id}`)).status === "paused") break;
      await delay(50);
    }
    const { progress } = await server.get<DistillationJob>(`/v1/distillation/jobs/${id}`);
    const paused = await page(`/v1/distillation/jobs/${id}/report`);
    expect(paused).toContain("<b>paused</b>");
    if (progress.questions > 0) expect(paused).toContain(`the first ${progress.questions} of ${progress.questions}`);
    await server.post(`/v1/distillation/jobs/${id}/cancel`, {}, 200);
    await server.get(`/v1/distillation/jobs/djob_none/report`, 404);
    await server.get(`/v1/datasets/ds_none/report`, 404);
  });

  it("an exported dataset can be uploaded again and gives the same rows", async () => {
    const done = await ended((await start({ select: "all", target_rows: 7 })).id);
    expect(done.result).toMatchObject({ accepted: 7, ended_by: "target_rows" });
    const response = await fetch(`${server.url}/v1/datasets/${done.output_dataset}/export?format=jsonl`);
    const form = new FormData();
    form.append("file", new Blob([await response.text()]), "again.jsonl");
    const again = (await (
      await fetch(`${server.url}/v1/datasets`, { method: "POST", body: form })
    ).json()) as DatasetResource;
    const head = await server.get<DatasetResource>(`/v1/datasets/${done.output_dataset}`);
    expect(again.content_hash).toBe(head.content_hash);
  });

  it("scores and ranks the rows of a dataset into a new one", async () => {
    const made = await server.post<DistillationJob>(
      `/v1/datasets/${dataset}/score`,
      { student: "student", select: "best" },
      201,
    );
    const done = await ended(made.id);
    expect(done).toMatchObject({ status: "succeeded", config: { from: "rows", teacher: null, student: "student@1" } });
    const [row] = await rowsOf(done.output_dataset);
    expect(row).toMatchObject({
      id: "task-0",
      provenance: { rank: 1, of: expect.any(Number), score: { "kl.mean": null } },
    });
  });

  it("trains a student on what it made, with a control, and measures both", async () => {
    const training = { max_steps: 2, per_device_train_batch_size: 4, save_steps: 1 };
    const { id } = await start({
      target_rows: 10,
      finetune: {
        model: "student",
        hyperparameters: training,
        lora: { r: 2 },
        suffix: "distilled",
        controls: ["solutions"],
      },
      evaluate: { dataset, answer: "exact", limit: 4, max_tokens: 16 },
    });
    const done = await ended(id);
    expect(done.error).toBeUndefined();
    // The context of the model that learns, where nothing else was asked for.
    expect(done.config).toMatchObject({ filters: { fits_context: 256 } });
    expect(done.result).toMatchObject({
      accepted: 10,
      student: "student-distilled@1",
      evaluation: { before: { counts: { rows: 4 } }, after: { counts: { rows: 4 } }, uplift: { rows: 4 } },
      controls: { solutions: { student: expect.stringMatching(/^student@ckpt_/), behind: { rows: 4 } } },
    });
    const { student } = done.result as { student: string };
    await server.post("/v1/scores", { student, items: [{ question: "1 + 1", solution: "2", explanation: "so 2" }] });
  });

  it.each<[object, string, RegExp]>([
    [{ teacher: "nobody" }, "teacher", /nobody/],
    [{ student: "nobody" }, "student", /nobody/],
    [{ dataset: "ds_none" }, "dataset", /no dataset/],
    [{ student: undefined, select: "best" }, "student", /only a student can say/],
    [{ student: undefined, samples_per_question: 1, fits_context: true }, "student", /fits_context/],
    [{ student: undefined, select: { min_reward: 0 } }, "student", /select/],
    [{ select: { where: { rewards: { gte: 0 } } } }, "select", /./],
    [{ samples_per_question: 0 }, "samples_per_question", /./],
    [{ temperature: 0 }, "temperature", /all 3 explanations of a question are the same/],
    [{ sample_per_question: 1 }, "sample_per_question", /samples_per_question/],
    [{ preview: 3, finetune: { model: "student" } }, "preview", /trains nobody/],
    [{ evaluate: { dataset: "ds_none", answer: "exact" } }, "evaluate", /no student to measure/],
    [{ finetune: { model: "student" }, evaluate: { dataset: "x", answer: "guess" } }, "evaluate.answer", /./],
    [{ finetune: { model: "nobody" } }, "finetune.model", /nobody/],
    [{ finetune: { model: "student", lora: { r: 0 } } }, "finetune.lora.r", /./],
    [{ finetune: { model: "student", hyperparameters: { beta: 1 } } }, "finetune.hyperparameters.beta", /./],
  ])("refuses %j before anything is queued", async (changes, param, message) => {
    const status = "teacher" in changes || "dataset" in changes || /nobody/.test(JSON.stringify(changes)) ? 404 : 400;
    const { error } = await server.post<{ error: { param: string; message: string } }>(
      "/v1/distillation/jobs",
      job(changes),
      status,
    );
    expect(error.param.startsWith(param)).toBe(true);
    expect(error.message).toMatch(message);
  });
});
