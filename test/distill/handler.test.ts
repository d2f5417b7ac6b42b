import { readdir, stat } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createDistillationService, DISTILLATION, type DistillationDeps } from "../../src/api/distillation/service.ts";
import { createFileArtifacts } from "../../src/artifacts/files.ts";
import { keepDataset } from "../../src/datasets/keep.ts";
import type { DatasetRow } from "../../src/datasets/row.ts";
import type { DistillConfig } from "../../src/distill/config.ts";
import { type DistillResult, runDistillation } from "../../src/distill/handler.ts";
import { judgedAgain } from "../../src/distill/known.ts";
import { fail } from "../../src/errors.ts";
import { readJournal } from "../../src/jobs/journal.ts";
import type { JobProgress, JobRecord } from "../../src/jobs/records.ts";
import { studentFormat } from "../../src/rlt/formats.ts";
import { studentRow } from "../../src/train/rows.ts";
import {
  claim,
  type DistillLab,
  type DistillRun,
  distillConfig,
  journalOf,
  newRun,
  openDistillLab,
  questions,
} from "./fixture.ts";

let lab: DistillLab;
beforeAll(async () => {
  lab = await openDistillLab();
});
afterAll(() => lab?.close());

async function whole(config: DistillConfig, run: DistillRun = newRun()) {
  const { outcome, result } = await runDistillation(lab.deps, claim(run, config));
  return { outcome, result: result as DistillResult, run };
}

/** But for the job's name. */
const nameless = (rows: DatasetRow[]) =>
  rows.map(({ provenance, ...row }) => ({ ...row, provenance: { ...provenance, job: "" } }));

describe("a distillation job", () => {
  it("makes one row of every question, the one its student understands best, and keeps the others with the reason", async () => {
    const { outcome, result, run } = await whole(distillConfig());
    expect(outcome).toBe("succeeded");
    expect(result).toMatchObject({
      accepted: 40,
      questions_used: 40,
      ended_by: "questions_used",
      rejected: { not_chosen: 40 },
    });
    const rows = await lab.rowsOf(result.output_dataset);
    const rest = await lab.rowsOf(result.error_dataset);
    const asked = questions(40);
    expect(rows.map(({ id, question, solution, metadata }) => ({ id, question, solution, metadata }))).toEqual(
      asked.map(({ id, question, solution, metadata }) => ({ id, question, solution, metadata })),
    );
    rows.forEach((row, i) => {
      const taken = row.provenance as { score: { reward: number }; attempts: number };
      expect(taken).toMatchObject({
        surprise: {
          teacher: { mean: expect.any(Number), tokens: expect.any(Number) },
          student: { max: expect.any(Number) },
        },
        job: run.job,
        row: i,
        teacher: "mini@1",
        student: "mini@1",
        attempts: 2,
        completion_tokens: expect.any(Number),
      });
      expect(taken.score.reward).toBeGreaterThanOrEqual((rest[i]!.provenance as typeof taken).score.reward);
      expect(rest[i]!.provenance).toMatchObject({ reason: "not_chosen", row: i });
    });
    expect(run.progress).toMatchObject({ step: 40, questions: 40, accepted: 40, tokens_sampled: expect.any(Number) });
    expect(run.events.filter(({ type }) => type === "job.sample").length).toBeGreaterThan(10);
    // What only served to go on is gone.
    await expect(stat(journalOf(lab.deps.artifacts, run.job))).rejects.toMatchObject({ code: "ENOENT" });
  });

  it("killed again and again, it gives the rows of an undisturbed run and makes no question twice", async () => {
    const config = distillConfig({ select: { rule: "all", where: null } });
    const undisturbed = await whole(config);
    const run = newRun();
    let made = 0;
    let finished: DistillResult | undefined;
    for (let life = 1; !finished; life++) {
      const ending = new AbortController();
      // The n-th life ends after n more samples were told.
      let told = 0;
      const context = claim(run, config, {
        signal: ending.signal,
        onEvent: () => ++told >= life + 1 && ending.abort(),
      });
      try {
        finished = (await runDistillation(lab.deps, context)).result as DistillResult;
      } catch {
        expect(ending.signal.aborted).toBe(true);
        let now = 0;
        for await (const _ of readJournal(journalOf(lab.deps.artifacts, run.job))) now++;
        expect(now).toBeGreaterThanOrEqual(made);
        made = now;
      }
    }
    expect(run.attempts).toBeGreaterThan(5);
    const rows = await lab.rowsOf(finished.output_dataset);
    expect(nameless(rows)).toEqual(nameless(await lab.rowsOf(undisturbed.result.output_dataset)));
    expect(rows.length).toBe(80);
    expect(run.metrics).toEqual(undisturbed.run.metrics);
  }, 120_000);

  it("a journal holds every row once, whichever life wrote it", async () => {
    const config = distillConfig();
    const run = newRun();
    for (const most of [3, 5]) {
      const ending = new AbortController();
      let told = 0;
      const context = claim(run, config, { signal: ending.signal, onEvent: () => ++told >= most && ending.abort() });
      await runDistillation(lab.deps, context).catch(() => undefined);
    }
    const folder = journalOf(lab.deps.artifacts, run.job);
    expect((await readdir(folder)).sort()).toEqual(["1.jsonl", "2.jsonl"]);
    const seen: number[] = [];
    for await (const { row } of readJournal(folder)) seen.push(row);
    expect(new Set(seen).size).toBe(seen.length);
  });

  it("meets a target exactly, in the order of rows and samples", async () => {
    const config = distillConfig({ select: { rule: "all", where: null }, target_rows: 13 });
    const { result } = await whole(config);
    expect(result).toMatchObject({
      accepted: 13,
      questions_used: 7,
      ended_by: "target_rows",
      rejected: { not_needed: 1 },
    });
    const rows = await lab.rowsOf(result.output_dataset);
    expect(rows.map(({ provenance }) => [provenance!.row, provenance!.sample])).toEqual(
      Array.from({ length: 13 }, (_, i) => [Math.floor(i / 2), i % 2]),
    );
  });

  it("says when the questions did not suffice", async () => {
    const { outcome, result } = await whole(
      distillConfig({ target_rows: 30, select: { rule: "best", where: { reward: { gte: 1e9 } } } }),
    );
    expect(outcome).toBe("succeeded");
    expect(result).toMatchObject({
      accepted: 0,
      output_dataset: null,
      ended_by: "questions_used",
      rejected: { below_threshold: 80 },
    });
    const [row] = await lab.rowsOf(result.error_dataset);
    expect(row!.provenance).toMatchObject({ reason: "below_threshold", detail: expect.stringMatching(/^reward is -/) });
  });

  it("draws the same explanations for a question however many rows stand before it", async () => {
    const few = await whole(distillConfig({ preview: 3 }));
    const many = await whole(distillConfig());
    expect(few.result.ended_by).toBe("preview");
    const [a, b] = await Promise.all([few, many].map(({ result }) => lab.rowsOf(result.output_dataset)));
    expect(nameless(a!)).toEqual(nameless(b!.slice(0, 3)));
  });

  it("paused, it keeps what it has and goes on from there", async () => {
    const config = distillConfig();
    const run = newRun();
    let told = 0;
    const first = claim(run, config, { wanted: () => (told >= 4 ? "pause" : null), onEvent: () => void told++ });
    expect(await runDistillation(lab.deps, first)).toEqual({ outcome: "paused" });
    const sampled = (run.progress as unknown as { tokens_sampled: number }).tokens_sampled;
    const { result } = await whole(config, run);
    expect(result.accepted).toBe(40);
    const undisturbed = await whole(config);
    expect(run.progress).toMatchObject({
      tokens_sampled: (undisturbed.run.progress as { tokens_sampled?: number }).tokens_sampled,
    });
    expect(sampled).toBeGreaterThan(0);
  });

  it("cancelled while it was paused, it writes down what it has finished", async () => {
    const run = newRun();
    let told = 0;
    const wanted = () => (told >= 4 ? ("pause" as const) : null);
    await runDistillation(lab.deps, claim(run, distillConfig(), { wanted, onEvent: () => void told++ }));
    const paused = {
      id: run.job,
      kind: DISTILLATION,
      status: "paused",
      config: distillConfig(),
      progress: run.progress,
    };
    const queue = {
      find: async () => paused,
      async wrapUp(_: JobRecord, progress: JobProgress) {
        run.progress = progress;
        return { ...paused, status: "queued", progress };
      },
    };
    const service = createDistillationService({ queue, artifacts: lab.deps.artifacts } as unknown as DistillationDeps);
    expect((await service.cancel(run.job)).status).toBe("queued");
    const { outcome, result } = await runDistillation(lab.deps, claim(run, distillConfig()));
    const { accepted, output_dataset: output, ended_by: by } = result as DistillResult;
    expect([outcome, by]).toEqual(["cancelled", "cancelled"]);
    expect(accepted).toBeGreaterThan(0);
    expect(accepted).toBeLessThan(40);
    expect((await lab.rowsOf(output)).length).toBe(accepted);
  });

  it.each([
    ["cancelled", "cancelled", {}],
    ["out of budget", "budget", { budget: { tokens: 100, seconds: null } }],
  ])("%s, it keeps the rows it has finished", async (_, ended, changes) => {
    const run = newRun();
    let told = 0;
    const wanted = () => (ended === "cancelled" && told >= 4 ? ("cancel" as const) : null);
    const context = claim(run, distillConfig(changes), { wanted, onEvent: () => void told++ });
    const { outcome, result } = await runDistillation(lab.deps, context);
    expect(outcome).toBe(ended);
    const { accepted, output_dataset: output, ended_by: by } = result as DistillResult;
    expect(by).toBe(ended);
    expect(accepted).toBeGreaterThan(0);
    expect(accepted).toBeLessThan(40);
    expect((await lab.rowsOf(output)).length).toBe(accepted);
  });

  it("without a student nothing is scored, and the first explanation of each question is taken raw", async () => {
    const { result } = await whole(distillConfig({ student: null, select: { rule: "raw", where: null } }));
    expect(result.accepted).toBe(40);
    const rows = await lab.rowsOf(result.output_dataset);
    expect(rows.every(({ provenance }) => provenance!.sample === 0 && provenance!.score === null)).toBe(true);
  });

  it("scores the traces that rows bring, and passes over a row without one", async () => {
    const rows = questions(6);
    delete rows[2]!.reasoning_trace;
    const deps = {
      ...lab.deps,
      dataset: async (id: string) => ({ id, contentHash: "sha256:six", count: 6, row: async (i: number) => rows[i]! }),
    };
    const config = distillConfig({ from: "rows", samples_per_question: 1, select: { rule: "all", where: null } });
    const { result } = await runDistillation(deps, claim(newRun(), config));
    const made = result as DistillResult;
    expect(made).toMatchObject({ accepted: 5, rejected: { unusable_question: 1 } });
    const kept = await lab.rowsOf(made.output_dataset);
    expect(kept.map(({ reasoning_trace: trace }) => trace)).toEqual(
      rows.flatMap(({ reasoning_trace: trace }) => trace ?? []),
    );
    expect(kept[0]!.provenance).toMatchObject({ score: { reward: expect.any(Number), uplift: expect.any(Number) } });
    const [lost] = await lab.rowsOf(made.error_dataset);
    expect(lost!.provenance).toMatchObject({
      reason: "unusable_question",
      detail: expect.stringMatching(/no reasoning_trace/),
    });
  });

  it("keeps what it has finished when a model fails it for good", async () => {
    const run = newRun();
    let asked = 0;
    const failing = async (): Promise<never> => {
      throw fail("backend_failed", "the server behind the teacher is gone");
    };
    const deps: typeof lab.deps = {
      ...lab.deps,
      async teach(model, signal) {
        const held = await lab.deps.teach(model, signal);
        const sample: typeof held.engine.sample = (request) =>
          (++asked > 20 ? { [Symbol.asyncIterator]: () => ({ next: failing }) } : held.engine.sample(request)) as never;
        return { ...held, engine: { ...held.engine, sample } };
      },
    };
    await expect(runDistillation(deps, claim(run, distillConfig()))).rejects.toMatchObject({ code: "backend_failed" });
    const { rows } = (run.progress as unknown as { made: { rows: { result: DistillResult } } }).made;
    expect(rows.result).toMatchObject({ ended_by: "failed", accepted: expect.any(Number) });
    expect(rows.result.accepted).toBeGreaterThan(0);
    expect((await lab.rowsOf(rows.result.output_dataset)).length).toBe(rows.result.accepted);
  });

  it("counts a row as long as a student that learns it finds it", async () => {
    const { result } = await whole(distillConfig({ preview: 2 }));
    const [row] = await lab.rowsOf(result.output_dataset);
    const { text, format } = await lab.deps.serve("mini@1", new AbortController().signal);
    const { question, solution, reasoning_trace: explanation = "", provenance } = row!;
    const { ids } = await studentRow(text, studentFormat(format), { question, solution, explanation });
    // What was sampled need not be what tokenising its text gives.
    const drawn = provenance as { score: { text_tokens: number } };
    expect(drawn.score.text_tokens).toBe(ids.length);
  });

  it("is given back, not failed, while the database is away", async () => {
    const run = newRun();
    const teach = async (): Promise<never> => {
      throw fail("database_unavailable", "the database does not answer");
    };
    const away = runDistillation({ ...lab.deps, teach }, claim(run, distillConfig()));
    await expect(away).rejects.toMatchObject({ code: "database_unavailable" });
    expect((run.progress as unknown as { made: object }).made).not.toHaveProperty("rows");
    expect((await whole(distillConfig(), run)).result.accepted).toBe(40);
  });

  it("killed between its datasets, it comes to the end it had decided on", async () => {
    const run = newRun();
    let asked = 0;
    const teach: typeof lab.deps.teach = async (model, signal) => {
      const held = await lab.deps.teach(model, signal);
      const sample: typeof held.engine.sample = (request) => {
        if (++asked > 20) throw fail("backend_failed", "the server behind the teacher is gone");
        return held.engine.sample(request);
      };
      return { ...held, engine: { ...held.engine, sample } };
    };
    const ending = new AbortController();
    const keep: typeof lab.deps.keep = async (head, write, signal) => {
      const kept = await lab.deps.keep(head, write, signal);
      ending.abort();
      return kept;
    };
    const killed = claim(run, distillConfig(), { signal: ending.signal });
    await expect(runDistillation({ ...lab.deps, teach, keep }, killed)).rejects.toThrow();
    // The teacher is back; what was written already must agree with what is said of it.
    await expect(runDistillation(lab.deps, claim(run, distillConfig()))).rejects.toMatchObject({
      code: "backend_failed",
    });
    const { rows } = (run.progress as unknown as { made: { rows: { result: DistillResult } } }).made;
    expect((await lab.rowsOf(rows.result.output_dataset)).length).toBe(rows.result.accepted);
    await expect(stat(journalOf(lab.deps.artifacts, run.job))).rejects.toMatchObject({ code: "ENOENT" });
  });

  it("leaves a dataset to a worker that was quicker with it", async () => {
    const { result } = await whole(distillConfig());
    const [made] = lab.datasets.filter(({ id }) => id === result.output_dataset);
    const heads = {
      find: async () => undefined as typeof made,
      insert: async () => Promise.reject(new Error("unique")),
    };
    const artifacts = createFileArtifacts({ directory: lab.deps.artifacts });
    const keep = keepDataset({ store: heads, artifacts });
    const head = { id: made!.id, name: null, source: made!.source };
    const write: Parameters<typeof keep>[1] = async (writer) => {
      heads.find = async () => made;
      await writer.add({ question: "q", solution: "s" });
    };
    expect(await keep(head, write, new AbortController().signal)).toEqual({ id: made!.id, rows: made!.rows });
  });

  it("does not go on with other rows than it began with", async () => {
    const run = newRun();
    let told = 0;
    const first = claim(run, distillConfig(), {
      wanted: () => (told >= 2 ? "pause" : null),
      onEvent: () => void told++,
    });
    await runDistillation(lab.deps, first);
    const changed = {
      ...lab.deps,
      dataset: async (id: string) => ({ ...(await lab.deps.dataset(id)), contentHash: "sha256:other" }),
    };
    await expect(runDistillation(changed, claim(run, distillConfig()))).rejects.toMatchObject({ code: "conflict" });
  });
});

describe("re-ranking", () => {
  /** Three questions of three traces each, the second of every question empty of sense. */
  const traces = (): ReturnType<typeof questions> =>
    questions(3).flatMap((row, i) =>
      [row.reasoning_trace!, "so so so", "then then it"].map((trace, j) => ({
        ...row,
        id: `${i}-${j}`,
        reasoning_trace: trace,
      })),
    );
  const over = (rows: ReturnType<typeof questions>, contentHash = "sha256:traces") => ({
    ...lab.deps,
    dataset: async (id: string) =>
      id === "ds_traces"
        ? { id, contentHash, count: rows.length, row: async (i: number) => rows[i]! }
        : lab.deps.dataset(id),
  });
  const rescoring = (changes: Partial<DistillConfig> = {}) =>
    distillConfig({
      from: "rows",
      dataset: "ds_traces",
      teacher: null,
      samples_per_question: 1,
      select: { rule: "all", where: null },
      ...changes,
    });

  it("ranks the rows of one question against each other", async () => {
    const { result } = await runDistillation(over(traces()), claim(newRun(), rescoring()));
    const rows = await lab.rowsOf((result as DistillResult).output_dataset);
    expect(rows.map(({ id }) => id)).toEqual(traces().map(({ id }) => id));
    for (let i = 0; i < 9; i += 3) {
      const group = rows
        .slice(i, i + 3)
        .map(({ provenance }) => provenance as { rank: number; of: number; score: { reward: number } });
      expect(group.map(({ rank }) => rank).sort()).toEqual([1, 2, 3]);
      const byRank = [...group].sort((a, b) => a.rank - b.rank).map(({ score }) => score.reward);
      expect(byRank).toEqual([...byRank].sort((a, b) => b - a));
    }
  });

  it("keeps the best of each question, and says of the others that they were not chosen", async () => {
    const best = rescoring({ select: { rule: "best", where: null } });
    const { result } = await runDistillation(over(traces()), claim(newRun(), best));
    expect(result).toMatchObject({ accepted: 3, rejected: { not_chosen: 6 } });
    const rows = await lab.rowsOf((result as DistillResult).output_dataset);
    expect(rows.map(({ provenance }) => provenance!.rank)).toEqual([1, 1, 1]);
  });

  it("puts other coefficients to scores that are there already, without asking a model", async () => {
    const { result } = await runDistillation(over(traces()), claim(newRun(), rescoring()));
    const first = await lab.rowsOf((result as DistillResult).output_dataset);
    const nobody = async (): Promise<never> => {
      throw new Error("a model was asked");
    };
    const coefficients = { solution: { mean: 2, min: 0.5 }, kl: { mean: 0, max: 0 } };
    const deps = { ...over(first as ReturnType<typeof questions>), serve: nobody, teach: nobody };
    const again = await runDistillation(deps, claim(newRun(), rescoring({ coefficients })));
    const rows = await lab.rowsOf((again.result as DistillResult).output_dataset);
    rows.forEach(({ provenance }, i) => {
      const before = (first[i]!.provenance as { score: Record<string, number> }).score;
      const after = (provenance as { score: Record<string, number> }).score;
      const wanted =
        2 * before["solution.logprob_mean"]! + 0.5 * before["solution.logprob_min"]! + before["format.penalty"]!;
      expect(after.reward).toBeCloseTo(wanted, 9);
      expect(after.uplift).toBeCloseTo(before.uplift!, 9);
    });
    // Of another student nothing is known.
    await expect(runDistillation(deps, claim(newRun(), rescoring({ student: "other@1" })))).rejects.toThrow(
      /was asked/,
    );
  });

  it("reads again what was edited since, was read with another k, or only looks like a score", async () => {
    const kl = { estimator: "topk_tail", k: 4 } as const;
    const { result } = await runDistillation(over(traces()), claim(newRun(), rescoring({ kl })));
    const [first] = (await lab.rowsOf((result as DistillResult).output_dataset)) as ReturnType<typeof questions>;
    const asks = async (row: object, changes: Partial<DistillConfig> = {}): Promise<boolean> => {
      let asked = false;
      const serve: typeof lab.deps.serve = (model, signal) => {
        asked = true;
        return lab.deps.serve(model, signal);
      };
      const deps = { ...over([row] as ReturnType<typeof questions>), serve };
      const again = await runDistillation(deps, claim(newRun(), rescoring({ kl, ...changes })));
      expect(again.result).toMatchObject({ accepted: 1 });
      return asked;
    };
    const { provenance } = first!;
    expect(await asks(first!)).toBe(false);
    expect(await asks({ ...first, reasoning_trace: `${first!.reasoning_trace}!` })).toBe(true);
    expect(await asks({ ...first, solution: "9" })).toBe(true);
    expect(await asks(first!, { kl: { ...kl, k: 5 } })).toBe(true);
    for (const [field, value] of Object.entries({
      tokens: 1,
      violations: "none",
      surprise: { student: 3 },
      score: [],
    })) {
      expect(await asks({ ...first, provenance: { ...provenance, [field]: value } })).toBe(true);
    }
  });

  it("an explanation that was empty costs as much when its score is put together again", async () => {
    const config = distillConfig({ from: "rows", samples_per_question: 1 });
    const nothing = { ends: [], logprobs: [], kl: [] };
    const score = {
      solution: { logprob_mean: -2, logprob_min: -4, reward: 0 },
      kl: null,
      penalty: -1,
      text_tokens: 9,
      tokens: { thought: nothing, solution: nothing },
    };
    const known = { score, surprise: { teacher: null, student: null }, tokens: 0, violations: [] };
    const { samples } = judgedAgain({ row: 0, question: "q", solution: "s" }, known, config);
    expect(samples[0]!.score).toMatchObject({ kl: null });
    expect(samples[0]!.score!.reward).toBeCloseTo(-2 - 0.04 - 1 - 3.03, 9);
  });
});
