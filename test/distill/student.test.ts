import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { DistillConfig } from "../../src/distill/config.ts";
import { type DistillResult, runDistillation } from "../../src/distill/handler.ts";
import type { StudentResult } from "../../src/distill/student.ts";
import { sftDefaults } from "../../src/train/config.ts";
import { LORA, sftConfig } from "../train/fixture.ts";
import { claim, type DistillLab, type DistillRun, distillConfig, newRun, openDistillLab } from "./fixture.ts";
import { reportOf } from "./report-fixture.ts";

let lab: DistillLab;
beforeAll(async () => {
  lab = await openDistillLab();
});
afterAll(() => lab?.close());
beforeEach(() => {
  lab.lab.checkpoints.length = 0;
  lab.lab.published.length = 0;
});

type Result = DistillResult & StudentResult;

function trainingJob(changes: Partial<DistillConfig> = {}): DistillConfig {
  const hyperparameters = {
    ...sftDefaults("student", true),
    per_device_train_batch_size: 4,
    max_steps: 3,
    save_steps: 1,
    learning_rate: 1e-3,
  };
  return distillConfig({
    preview: null,
    target_rows: 12,
    finetune: {
      training: sftConfig({ role: "student", model: "mini@1", lora: LORA, hyperparameters, suffix: null }),
      controls: ["solutions", "reasoning_trace"],
    },
    evaluate: {
      dataset: "ds_source",
      content_hash: "sha256:source",
      held_out: null,
      limit: 5,
      answer: { type: "exact" },
      max_tokens: 8,
      temperature: 0,
      top_p: 1,
      samples: 1,
      seed: 3,
    },
    ...changes,
  });
}

/** Where a life ends: the n-th write of any kind fails as it does for a worker that is gone. */
function mortal(run: DistillRun, config: DistillConfig, writes: number) {
  const ending = new AbortController();
  let left = writes;
  const context = claim(run, config, { signal: ending.signal });
  const dying =
    <A extends unknown[]>(write: (...args: A) => Promise<void>) =>
    async (...args: A): Promise<void> => {
      if (left-- <= 0) ending.abort();
      ending.signal.throwIfAborted();
      await write(...args);
    };
  return {
    ...context,
    event: dying(context.event),
    metrics: dying(context.metrics),
    progress: dying(context.progress),
    checkpoint: dying(async (checkpoint: Parameters<typeof context.checkpoint>[0]) => {
      lab.lab.checkpoints.push({
        ...checkpoint,
        jobId: run.job,
        isBest: false,
        createdAt: new Date(),
        deletedAt: null,
      });
    }),
  };
}

const FOR_EVER = 1e9;
/** Dozens of lives, each of which loads its models anew; a busy machine takes its time. */
const LONG_MS = 120_000;

/** The interval and both controls. */
async function expectReported(run: DistillRun, made: Result): Promise<void> {
  const { report, page } = await reportOf(lab, run, trainingJob(), "succeeded", made);
  const { before, after, uplift } = made.evaluation!;
  expect(report.evaluations).toMatchObject({ before, after, uplift });
  for (const control of ["solutions", "reasoning_trace"] as const) {
    const { evaluation, behind, dataset, student } = made.controls![control]!;
    expect(report.evaluations.controls[control]).toMatchObject({ evaluation, behind });
    for (const id of [dataset, student, made.student, made.checkpoint]) expect(page).toContain(`<code>${id}</code>`);
  }
  expect(page).toMatch(/On 5 rows accuracy went from .+ \(95 % interval .+; McNemar p [\d.]+\)/);
  expect(page).toContain("Control: solutions alone");
  expect(page).not.toMatch(/not measured yet|not asked for/);
  expect(page).toContain("Curve: loss by step");
}

describe("a distillation job that trains", () => {
  it("ends with a registered student, measured before and after, and both controls", async () => {
    const run = newRun();
    const { outcome, result } = await runDistillation(lab.deps, mortal(run, trainingJob(), FOR_EVER));
    expect(outcome).toBe("succeeded");
    const made = result as Result;
    expect(made).toMatchObject({
      accepted: 12,
      student: "mini@2",
      checkpoint: expect.stringMatching(/^ckpt_/),
      evaluation: {
        before: { accuracy: expect.any(Number), interval: { low: expect.any(Number) }, counts: { rows: 5 } },
        after: { counts: { rows: 5 } },
        uplift: { rows: 5, difference: expect.any(Number) },
      },
    });
    for (const control of ["solutions", "reasoning_trace"] as const) {
      const { student, dataset, uplift, behind } = made.controls![control]!;
      expect(student).toMatch(/^mini@ckpt_/);
      expect([uplift!.rows, behind!.rows]).toEqual([5, 5]);
      const rows = await lab.rowsOf(dataset);
      expect(rows.length).toBe(12);
      expect(rows.every((row) => (row.reasoning_trace !== undefined) === (control === "reasoning_trace"))).toBe(true);
    }
    // Controls stay checkpoints; the student alone is registered, trained on the job's rows.
    expect(lab.lab.published).toMatchObject([{ config: { dataset: made.output_dataset, role: "student" } }]);
    const names = [...run.metrics.values()].flatMap((values) => Object.keys(values));
    expect(names).toContain("distilled/loss");
    expect(names).toContain("solutions/loss");
    const steps = [run.progress!.step, (run.progress as unknown as { stage: string }).stage];
    expect(steps[0]).toBeGreaterThanOrEqual(9);
    await expectReported(run, made);
  });

  it("stops at its budget while it trains, too, with the student as far as it came", async () => {
    const rows = newRun();
    await runDistillation(
      lab.deps,
      mortal(rows, trainingJob({ target_rows: null, finetune: null, evaluate: null }), FOR_EVER),
    );
    const { tokens_sampled: sampled, tokens_scored: scored } = rows.progress as unknown as Record<string, number>;
    const run = newRun();
    const budget = { tokens: sampled! + scored! + 1, seconds: null };
    const { outcome, result } = await runDistillation(
      lab.deps,
      mortal(run, trainingJob({ target_rows: null, budget }), FOR_EVER),
    );
    expect(outcome).toBe("budget");
    expect(result).toMatchObject({
      accepted: 40,
      ended_by: "questions_used",
      checkpoint: expect.stringMatching(/^ckpt_/),
    });
    expect(lab.lab.checkpoints.map(({ step }) => step)).toEqual([1]);
    expect(result).not.toHaveProperty("controls");
  });

  it(
    "killed again and again at any write, it trains to the same weights and measures the same",
    async () => {
      const config = trainingJob();
      const whole = newRun();
      const { result } = await runDistillation(lab.deps, mortal(whole, config, FOR_EVER));
      const weights = (job: string) =>
        lab.lab.checkpoints
          .filter(({ jobId }) => jobId === job)
          .map((one) => [(one.config as { part: string }).part, one.step, one.weightsHash]);
      const run = newRun();
      let ended: Result | undefined;
      let lives = 0;
      for (; !ended && lives < 60; lives++) {
        ended = await runDistillation(lab.deps, mortal(run, config, 2 + (lives % 5))).then(
          (done) => done.result as Result,
          () => undefined,
        );
      }
      expect(lives).toBeGreaterThan(8);
      const nameless = (value: unknown) =>
        JSON.parse(JSON.stringify(value).replaceAll(/(ds|ckpt)_[0-9a-z]+/g, "$1_")) as unknown;
      expect(nameless(ended)).toEqual(nameless(result));
      const last = (job: string) => Object.fromEntries(weights(job).map(([part, , hash]) => [part, hash]));
      expect(last(run.job)).toEqual(last(whole.job));
    },
    LONG_MS,
  );

  it("paused while the student learns, it goes on there", async () => {
    const run = newRun();
    let asked = false;
    const first = mortal(run, trainingJob(), FOR_EVER);
    const pausing = {
      ...first,
      wanted: () => (asked ? ("pause" as const) : null),
      metrics: async (step: number, values: Readonly<Record<string, number>>) => {
        asked ||= "distilled/loss" in values;
        await first.metrics(step, values);
      },
    };
    expect(await runDistillation(lab.deps, pausing)).toMatchObject({ outcome: "paused" });
    expect(run.progress).toMatchObject({ stage: "finetune", part: "distilled" });
    const { outcome, result } = await runDistillation(lab.deps, mortal(run, trainingJob(), FOR_EVER));
    expect([outcome, (result as Result).student]).toEqual(["succeeded", "mini@2"]);
  });

  it("has nothing to train on where no row was accepted, and says so", async () => {
    const config = trainingJob({ target_rows: null, select: { rule: "all", where: { reward: { gt: 1e9 } } } });
    await expect(runDistillation(lab.deps, mortal(newRun(), config, FOR_EVER))).rejects.toMatchObject({
      code: "invalid_dataset",
      message: expect.stringMatching(/nothing to train on; ds_\w+ says why/),
    });
  });
});
