/** Evaluations of an untrained miniature: what it says is chance, so some of it is right and most of it is not. */
import { appendFile, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { SampleRequest } from "../../src/engine/engine.ts";
import { fail } from "../../src/errors.ts";
import type { EvaluationConfig } from "../../src/evaluate/config.ts";
import { type EvaluationDeps, rowsFolder, runEvaluation } from "../../src/evaluate/handler.ts";
import type { EvaluatedRow } from "../../src/evaluate/records.ts";
import { evaluate } from "../../src/evaluate/run.ts";
import { type EvaluationSummary, figuresOf, pairedDifference, summarise } from "../../src/evaluate/summary.ts";
import { openJournal, readJournal } from "../../src/jobs/journal.ts";
import type { TrainingRow } from "../../src/train/job-deps.ts";
import { derivedSeed } from "../../src/train/seeds.ts";
import { claim, type DistillRun, newRun } from "../distill/fixture.ts";
import { datasetOf, type Lab, openLab, tasks } from "../train/fixture.ts";

const ROWS = 24;
const TOO_LONG = 7;
const rows: TrainingRow[] = tasks(ROWS).map((row, i) => ({
  ...row,
  id: `q${i}`,
  ...(i === TOO_LONG ? { question: Array(200).fill("1").join(" + ") } : {}),
}));

let lab: Lab;
/** Seeds of what the engine was asked for, in order. */
let asked: number[] = [];
let deps: EvaluationDeps;
beforeAll(async () => {
  lab = await openLab();
  const serve = async (name: string, signal: AbortSignal) => {
    const student = await lab.deps.serve(name, signal);
    const sample = (request: SampleRequest) => {
      asked.push(request.seed);
      return student.engine.sample(request);
    };
    return { ...student, engine: { ...student.engine, contextLength: student.engine.contextLength, sample } };
  };
  deps = {
    serve: serve as EvaluationDeps["serve"],
    weightsHash: async () => "sha256:weights",
    dataset: async () => datasetOf(rows),
    patiently: (attempt) => attempt(),
    artifacts: lab.deps.artifacts,
    now: () => performance.now(),
  };
});
afterAll(() => lab?.close());

function config(changes: Partial<EvaluationConfig> = {}): EvaluationConfig {
  return {
    student: "mini@1",
    weights_hash: "sha256:weights",
    dataset: "ds_rows",
    content_hash: "sha256:rows",
    held_out: null,
    limit: null,
    answer: { type: "last_number", tolerance: 0 },
    max_tokens: 12,
    temperature: 1,
    top_p: 1,
    samples: 4,
    seed: 3,
    ...changes,
  };
}

async function rowsOf(run: DistillRun): Promise<EvaluatedRow[]> {
  const found: EvaluatedRow[] = [];
  for await (const row of readJournal<EvaluatedRow>(rowsFolder(deps.artifacts, run.job))) found.push(row);
  return found.sort((a, b) => a.row - b.row);
}

async function whole(changes: Partial<EvaluationConfig> = {}, run = newRun()) {
  asked = [];
  const { outcome, result } = await runEvaluation(deps, claim(run, config(changes)));
  return { outcome, summary: result as EvaluationSummary, rows: await rowsOf(run), run };
}

describe("an evaluation", () => {
  test("answers every question as often as was asked, and tells how well", async () => {
    const { outcome, summary, rows: made, run } = await whole();
    expect(outcome).toBe("succeeded");
    expect(made.map(({ row, id }) => [row, id])).toEqual(rows.map(({ id }, i) => [i, id]));
    expect(new Set(asked).size).toBe(ROWS - 1);
    const samples = made.flatMap((row) => row.samples);
    expect(samples).toHaveLength(4 * (ROWS - 1));
    const right = samples.filter(({ correct }) => correct).length;
    expect(right).toBeGreaterThan(0);
    expect(summary.accuracy).toBeCloseTo(right / (4 * ROWS), 12);
    expect(summary.pass_at_k["1"]).toBeCloseTo(summary.accuracy!, 12);
    expect(summary.pass_at_k["4"]!).toBeGreaterThan(summary.accuracy!);
    expect(summary.interval!.low).toBeLessThan(summary.accuracy!);
    expect(summary.interval!.high).toBeGreaterThan(summary.accuracy!);
    expect(summary.truncated).toBeCloseTo(samples.filter(({ truncated }) => truncated).length / (4 * ROWS), 12);
    for (const { tokens, truncated } of samples) expect(truncated ? tokens === 12 : tokens <= 12).toBe(true);
    expect(run.progress).toMatchObject({ step: ROWS, total_steps: ROWS, percent: 100 });
    expect(run.metrics.get(ROWS)).toMatchObject({ accuracy: summary.accuracy });
    expect(run.events.filter(({ type }) => type === "job.sample")).toHaveLength(8);
  });

  test("a row that is too long counts as wrong with its reason, and ends nothing", async () => {
    const { summary, rows: made } = await whole({ samples: 1, temperature: 0 });
    expect(made[TOO_LONG]).toMatchObject({
      samples: [],
      error: { code: "context_length_exceeded", message: expect.stringMatching(/context is 256/) },
    });
    expect(summary.counts).toMatchObject({ rows: ROWS, errors: { context_length_exceeded: 1 } });
  });

  test("greedy answers do not depend on the seed, others do", async () => {
    const texts = async (changes: Partial<EvaluationConfig>) =>
      (await whole(changes)).rows.flatMap(({ samples }) => samples.map(({ completion }) => completion));
    const greedy = { samples: 1, temperature: 0 };
    expect(await texts({ ...greedy, seed: 1 })).toEqual(await texts({ ...greedy, seed: 2 }));
    expect(await texts({ seed: 1 })).not.toEqual(await texts({ seed: 2 }));
  });

  test("part of the rows have the same draws as all of them", async () => {
    const all = await whole();
    const some = await whole({ limit: 5 });
    expect(some.rows).toEqual(all.rows.slice(0, 5));
    const held = await whole({ held_out: { fraction: 0.25, seed: 0, part: "held_out" } });
    expect(held.rows).toEqual(all.rows.slice(18));
    const train = await whole({ held_out: { fraction: 0.25, seed: 0, part: "train" }, limit: 3 });
    expect(train.rows).toEqual(all.rows.slice(0, 3));
  });

  test("killed again and again, it ends with the same rows and generates none of the finished ones again", async () => {
    const undisturbed = await whole();
    const run = newRun();
    const rowOfSeed = new Map(rows.map((_, i) => [derivedSeed(3, i), i]));
    let finished: unknown;
    let kills = 0;
    while (finished === undefined) {
      const before = new Set((await rowsOf(run)).map(({ row }) => row));
      asked = [];
      const ending = new AbortController();
      const context = claim(run, config(), { signal: ending.signal, onEvent: () => ending.abort() });
      try {
        finished = (await runEvaluation(deps, context)).result;
      } catch (error) {
        expect(ending.signal.aborted).toBe(true);
        expect(String(error)).toMatch(/abort/i);
        kills++;
      }
      expect(asked.filter((seed) => before.has(rowOfSeed.get(seed)!))).toEqual([]);
    }
    expect(kills).toBeGreaterThan(1);
    expect(await readdir(rowsFolder(deps.artifacts, run.job))).toHaveLength(kills + 1);
    expect(finished).toEqual(undisturbed.summary);
    expect(await rowsOf(run)).toEqual(undisturbed.rows);
  });

  test("a line that a kill cut off is generated again", async () => {
    const undisturbed = await whole();
    const run = newRun();
    const folder = rowsFolder(deps.artifacts, run.job);
    const journal = await openJournal<EvaluatedRow>(folder, 1);
    await journal.append(undisturbed.rows[0]!);
    await journal.close();
    const file = path.join(folder, "1.jsonl");
    await appendFile(file, JSON.stringify(undisturbed.rows[1]).slice(0, 40));
    run.attempts = 1;
    asked = [];
    const { result } = await runEvaluation(deps, claim(run, config()));
    expect(asked).toHaveLength(ROWS - 2);
    expect(result).toEqual(undisturbed.summary);
    expect(await rowsOf(run)).toEqual(undisturbed.rows);
  });

  test("paused it keeps its rows and goes on; cancelled it tells of those it has", async () => {
    const undisturbed = await whole();
    for (const wanted of ["pause", "cancel"] as const) {
      const run = newRun();
      let stop = false;
      const context = claim(run, config({ samples: 64, max_tokens: 2 }), {
        wanted: () => (stop ? wanted : null),
        onEvent: () => {
          stop = true;
        },
      });
      const { outcome, result } = await runEvaluation(deps, context);
      const kept = (await rowsOf(run)).length;
      expect(kept).toBeLessThan(ROWS);
      if (wanted === "cancel") {
        expect(outcome).toBe("cancelled");
        expect(result).toMatchObject({ counts: { rows: kept } });
      } else {
        expect([outcome, result]).toEqual(["paused", undefined]);
        expect(await runEvaluation(deps, claim(run, config({ samples: 64, max_tokens: 2 })))).toMatchObject({
          outcome: "succeeded",
          result: { counts: { rows: undisturbed.rows.length } },
        });
      }
    }
  });

  test("what an engine refuses because it is busy is asked again", async () => {
    let refusals = 0;
    const busy: EvaluationDeps = {
      ...deps,
      async serve(name, signal) {
        const student = await deps.serve(name, signal);
        const sample = (request: SampleRequest) => {
          if (refusals++ < 5) throw fail("queue_full", "too many");
          return student.engine.sample(request);
        };
        return { ...student, engine: { ...student.engine, sample } };
      },
      async patiently(attempt) {
        for (;;) {
          try {
            return await attempt();
          } catch (error) {
            if ((error as { code?: string }).code !== "queue_full") throw error;
          }
        }
      },
    };
    const undisturbed = await whole();
    const { result } = await runEvaluation(busy, claim(newRun(), config()));
    expect(refusals).toBeGreaterThan(5);
    expect(result).toEqual(undisturbed.summary);
  });

  test("other failures end it, and no row is made up", async () => {
    const broken: EvaluationDeps = {
      ...deps,
      async serve(name, signal) {
        const student = await deps.serve(name, signal);
        const sample = () => {
          throw fail("engine_failed", "no");
        };
        return { ...student, engine: { ...student.engine, sample } };
      },
    };
    const run = newRun();
    await expect(runEvaluation(broken, claim(run, config()))).rejects.toMatchObject({ code: "engine_failed" });
    expect((await rowsOf(run)).filter(({ row }) => row !== TOO_LONG)).toEqual([]);
  });

  test.each([
    ["dataset", { dataset: async () => datasetOf(rows, "sha256:other") }],
    ["student", { weightsHash: async () => "sha256:other" }],
  ])("a %s that has changed ends it", async (what, changed) => {
    await expect(runEvaluation({ ...deps, ...changed }, claim(newRun(), config()))).rejects.toMatchObject({
      code: "conflict",
      message: expect.stringContaining(`the ${what} has changed`),
    });
  });
});

test("as a part of another job: two measurements with one seed are compared row by row", async () => {
  const folder = await mkdtemp(path.join(tmpdir(), "preceptor-evaluate-"));
  const { signal } = new AbortController();
  const student = await deps.serve("mini@1", signal);
  const measure = async (name: string, temperature: number) => {
    const journal = await openJournal<EvaluatedRow>(path.join(folder, name), 1);
    try {
      return await evaluate(
        { student, journal, signal, patiently: (attempt) => attempt() },
        {
          rows: [2, 4, 6, 8, 10],
          row: async (index) => rows[index]!,
          answer: { type: "last_number", tolerance: 0 },
          maxTokens: 12,
          temperature,
          topP: 1,
          samples: 4,
          seed: 3,
        },
      );
    } finally {
      await journal.close();
    }
  };
  try {
    const [before, after] = [await measure("before", 1), await measure("after", 1)];
    expect(before.complete).toBe(true);
    expect(after.summary).toEqual(before.summary);
    expect(pairedDifference(before.figures.values(), after.figures.values(), 4)).toMatchObject({
      difference: 0,
      improved: 0,
      worsened: 0,
      rows: 5,
      mcnemar_p: null,
    });
    const other = await measure("other", 2);
    const { difference } = pairedDifference(before.figures.values(), other.figures.values(), 4);
    expect(difference).toBeCloseTo(other.summary.accuracy! - before.summary.accuracy!, 12);
    const again = (await rowsFrom(path.join(folder, "before"))).map(figuresOf);
    expect(summarise(again, 4)).toEqual(before.summary);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

async function rowsFrom(folder: string): Promise<EvaluatedRow[]> {
  const found: EvaluatedRow[] = [];
  for await (const row of readJournal<EvaluatedRow>(folder)) found.push(row);
  return found;
}
