/** Evaluations over HTTP: every refusal before anything is queued, and some from order to answers. */
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { EvaluatedRowResource, Evaluation } from "../../src/api/evaluations/schemas.ts";
import type { JobEventResource } from "../../src/api/jobs/schemas.ts";
import { parseEvents } from "../../src/parse-events.ts";
import { describePostgres } from "../db/databases.ts";
import { type Running, startPreceptor } from "../e2e/running.ts";
import { miniatureDirectory, registerBoth } from "../e2e/training-fixture.ts";
import { takeTasks } from "../miniature/tasks.ts";

interface Refusal {
  error: { code: string; param: string | null; message: string };
}
interface Page {
  data: EvaluatedRowResource[];
  last_id: string | null;
  has_more: boolean;
}

let models: Awaited<ReturnType<typeof miniatureDirectory>>;
beforeAll(async () => {
  models = await miniatureDirectory();
});
afterAll(() => models?.remove());

const ROWS = 30;
const rows = takeTasks(ROWS, { seed: 5 }).map(({ question, solution }, i) => ({ id: `q${i}`, question, solution }));

async function start(databaseUrl = ""): Promise<{ server: Running; dataset: string; words: string }> {
  const server = await startPreceptor({
    PRECEPTOR_MODELS_DIRS: models.directory,
    PRECEPTOR_THREADS: "1",
    ...(databaseUrl ? { DATABASE_URL: databaseUrl } : {}),
  });
  await registerBoth(server);
  const made = (given: object[]) => server.post<{ id: string }>("/v1/datasets", { rows: given }, 201);
  const { id: dataset } = await made(rows);
  const { id: words } = await made([rows[0]!, { question: "1 + 1", solution: "two" }]);
  return { server, dataset, words };
}

async function ended(server: Running, id: string): Promise<Evaluation> {
  for (;;) {
    const job = await server.get<Evaluation>(`/v1/evaluations/${id}`);
    if (job.finished_at !== null) return job;
    await delay(30);
  }
}

async function allRows(server: Running, id: string, query = ""): Promise<EvaluatedRowResource[]> {
  const all: EvaluatedRowResource[] = [];
  for (let after = ""; ; ) {
    const page = await server.get<Page>(`/v1/evaluations/${id}/rows?limit=7${query}${after}`);
    all.push(...page.data);
    if (!page.has_more) return all;
    after = `&after=${page.last_id}`;
  }
}

function suite(open: () => ReturnType<typeof start>): void {
  let server: Running;
  let dataset: string;
  let words: string;
  beforeAll(async () => {
    ({ server, dataset, words } = await open());
  });
  afterAll(() => server?.close());

  const body = (changes: object = {}) => ({
    student: "student",
    dataset,
    answer: "last_number",
    max_tokens: 12,
    temperature: 1,
    samples: 3,
    seed: 4,
    ...changes,
  });

  test("from the order to the answers: figures, pages, events, deletion of what it needs", async () => {
    const created = await server.post<Evaluation>("/v1/evaluations", body({ metadata: { run: "7" } }), 201);
    expect(created).toMatchObject({
      object: "evaluation",
      status: "queued",
      student: "student@1",
      dataset,
      seed: 4,
      metadata: { run: "7" },
      config: { answer: { type: "last_number", tolerance: 0 }, top_p: 1, samples: 3, limit: null, held_out: null },
    });
    const job = await ended(server, created.id);
    expect(job.error).toBeUndefined();
    expect(job).toMatchObject({ status: "succeeded", progress: { step: ROWS, total_steps: ROWS, percent: 100 } });
    const answers = await allRows(server, job.id);
    expect(answers.map(({ row, id, question, solution }) => ({ row, id, question, solution }))).toEqual(
      rows.map((row, i) => ({ row: i, ...row })),
    );
    const samples = answers.flatMap((row) => row.samples);
    expect(samples).toHaveLength(3 * ROWS);
    const right = samples.filter(({ correct }) => correct).length;
    expect(job.result!.accuracy).toBeCloseTo(right / (3 * ROWS), 12);
    expect(Object.keys(job.result!.pass_at_k)).toEqual(["1", "2", "3"]);
    expect(job.result!.interval).toMatchObject({ level: 0.95, method: "wilson_effective" });
    const [yes, no] = await Promise.all(["true", "false"].map((is) => allRows(server, job.id, `&correct=${is}`)));
    expect([...yes!, ...no!].sort((a, b) => a.row - b.row)).toEqual(answers);
    for (const { samples: own } of yes!) expect(own.every(({ correct }) => correct)).toBe(true);

    const { data } = await server.get<{ data: JobEventResource[] }>(`/v1/evaluations/${job.id}/events?limit=1000`);
    expect(data.map(({ sequence_number: n }) => n)).toEqual(data.map((_, i) => i + 1));
    expect(new Set(data.map(({ object }) => object))).toEqual(new Set(["evaluation.event"]));
    expect(data.filter(({ type }) => type === "job.sample").length).toBeGreaterThan(5);
    expect(data.at(-1)).toMatchObject({ type: "job.completed", data: { result: job.result } });
    const stream = await fetch(`${server.url}/v1/evaluations/${job.id}/events?stream=true`);
    const streamed: string[] = [];
    for await (const event of parseEvents(stream.body!)) streamed.push(event.event);
    expect(streamed).toEqual(data.map(({ type }) => type));

    const found = await server.get<{ data: Evaluation[] }>("/v1/evaluations?metadata=run:7&status=succeeded");
    expect(found.data.map(({ id }) => id)).toEqual([job.id]);
    expect(await (await fetch(`${server.url}/metrics`)).text()).toMatch(
      /preceptor_jobs\{kind="evaluation",status="succeeded"\} [1-9]/,
    );
    const again = await server.post<Evaluation>("/v1/evaluations", body(), 201);
    expect((await ended(server, again.id)).result).toEqual(job.result);
    expect(await allRows(server, again.id)).toEqual(answers);
  });

  test("a held-out part: other rows than those of the other part", async () => {
    const part = async (changes: object) => {
      const held_out = { fraction: 0.4, seed: 2, ...changes };
      const { id } = await server.post<Evaluation>("/v1/evaluations", body({ held_out, samples: 1 }), 201);
      await ended(server, id);
      return (await allRows(server, id)).map(({ row }) => row);
    };
    const [held, train] = [await part({}), await part({ part: "train" })];
    expect([...held, ...train].sort((a, b) => a - b)).toEqual(rows.map((_, i) => i));
    expect(held.length).toBeGreaterThan(0);
    expect(train.length).toBeGreaterThan(held.length / 2);
  });

  test("it can be paused, resumed and cancelled, and keeps what it needs", async () => {
    const { id } = await server.post<Evaluation>("/v1/evaluations", body({ samples: 64, max_tokens: 200 }), 201);
    const verb = (name: string, status?: number) =>
      server.post<Evaluation>(`/v1/evaluations/${id}/${name}`, {}, status);
    const inUse = await fetch(`${server.url}/v1/datasets/${dataset}`, { method: "DELETE" });
    expect(inUse.status).toBe(409);
    await verb("pause");
    for (;;) {
      const { status } = await server.get<Evaluation>(`/v1/evaluations/${id}`);
      if (status === "paused") break;
      expect(["queued", "running"]).toContain(status);
      await delay(30);
    }
    const before = await allRows(server, id);
    expect((await verb("resume")).status).toBe("queued");
    await verb("cancel");
    expect(await ended(server, id)).toMatchObject({ status: "cancelled" });
    const after = await allRows(server, id);
    expect(after.filter(({ row }) => before.some((one) => one.row === row))).toEqual(before);
    await verb("resume", 409);
  });

  describe("refused before anything is queued", () => {
    test.each<[string, object, string, RegExp, string?]>([
      ["no answer", { answer: undefined }, "answer", /./],
      ["an unknown answer", { answer: "guess" }, "answer", /./],
      ["an option that is not its own", { answer: { type: "boxed", tolerance: 0.1 } }, "answer.tolerance", /./, "any"],
      ["an unknown field", { sample: 3 }, "sample", /samples/, "unknown_parameter"],
      ["greedy samples", { temperature: 0 }, "temperature", /all 3 samples of a question are the same/],
      ["too many samples", { samples: 65 }, "samples", /64/],
      ["a student that is not there", { student: "nobody" }, "student", /nobody/, "model_not_found"],
      ["a teacher", { student: "teacher" }, "student", /teacher/, "model_not_found"],
      ["a dataset that is not there", { dataset: "ds_0" }, "dataset", /ds_0/, "not_found"],
      ["more tokens than the context", { max_tokens: 256 }, "max_tokens", /256 tokens/, "context_length_exceeded"],
      ["all of it held out", { held_out: { fraction: 1 } }, "held_out.fraction", /1/],
      ["no rows", { limit: 0 }, "limit", /1/],
      ["no choices", { answer: "choice" }, "dataset", /row 1 has none of the letters/],
      ["no Countdown", { answer: "countdown" }, "dataset", /row 1 has no numbers and target/],
    ])("%s", async (_, changes, param, message, code = "invalid_value") => {
      const status = /not_found/.test(code) ? 404 : 400;
      const { error } = await server.post<Refusal>("/v1/evaluations", body(changes), status);
      if (code !== "any") expect(error).toMatchObject({ code, param });
      expect(error.param).toMatch(/^(answer|\w)/);
      expect(error.message).toMatch(message);
    });
    test("a row that cannot be checked is named", async () => {
      const { error } = await server.post<Refusal>("/v1/evaluations", body({ dataset: words }), 400);
      expect(error).toMatchObject({ param: "dataset", message: expect.stringMatching(/row 2 has no number/) });
    });
    test("what is not there is 404", async () => {
      for (const path of ["", "/rows", "/events", "/metrics"]) {
        expect((await server.get<Refusal>(`/v1/evaluations/eval_0${path}`, 404)).error.code).toBe("not_found");
      }
    });
  });
}

describe("evaluations (PGlite)", () => suite(() => start()));
describePostgres("evaluations", (url) => suite(() => start(url())));
