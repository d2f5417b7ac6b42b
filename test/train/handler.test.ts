import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { readSafetensorsHeader } from "../../src/model/safetensors.ts";
import { readTensor } from "../../src/model/tensor-data.ts";
import type { TrainingConfig } from "../../src/train/config.ts";
import { runTraining } from "../../src/train/handler.ts";
import { datasetOf, type Lab, LORA, openLab, rltConfig, sftConfig, startRun, tasks } from "./fixture.ts";

let lab: Lab;
beforeAll(async () => {
  lab = await openLab();
});
afterAll(() => lab?.close());
beforeEach(() => {
  lab.checkpoints.length = 0;
  lab.published.length = 0;
});

const run = async (started: ReturnType<typeof startRun>) => runTraining(lab.deps, started.context);
const folderOf = (id: string): string => path.join(lab.deps.artifacts, "checkpoints", id);

function pulled(config: TrainingConfig): TrainingConfig {
  Object.assign(config.hyperparameters, { sync_ref_model: true, ref_model_sync_steps: 1 });
  return config;
}

async function weightsOf(id: string): Promise<Record<string, number[]>> {
  const directory = folderOf(id);
  const name = (await readdir(directory)).find((file) => /^(adapter_)?model\.safetensors$/.test(file))!;
  const { tensors } = await readSafetensorsHeader(path.join(directory, name), name);
  const entries = [...tensors].map(async ([tensor, at]) => [tensor, Array.from(await readTensor(at))] as const);
  return Object.fromEntries(await Promise.all(entries));
}

describe("rlt", () => {
  test("runs to its end: metrics with TRL's names, samples, checkpoints, a new version", async () => {
    const job = startRun(lab, rltConfig({ eval: { dataset: null, held_out: 0.1, rows: 2, publish: "last" } }));
    const { outcome, result } = await run(job);
    expect(outcome).toBe("succeeded");
    expect(result).toMatchObject({ step: 4, teacher: "mini@2", checkpoint: expect.stringMatching(/^ckpt_/) });
    expect([...job.metrics.keys()]).toEqual([1, 2, 3, 4]);
    const names = Object.keys(job.metrics.get(1)!);
    for (const name of [
      "reward",
      "reward_std",
      "frac_reward_zero_std",
      "kl",
      "entropy",
      "completions/mean_length",
      "completions/clipped_ratio",
      "grad_norm",
      "num_tokens",
      "sampling/sampling_logp_difference/mean",
      "rewards/student/mean",
      "rlt/format_failures",
    ]) {
      expect(names).toContain(name);
    }
    // The same weights sample and learn, so their log-probs agree; and the first step's reference is the policy.
    expect(job.metrics.get(1)!["sampling/sampling_logp_difference/max"]).toBeLessThan(1e-4);
    expect(job.metrics.get(1)!.kl).toBeLessThan(1e-6);
    expect(job.metrics.get(4)!.kl).toBeGreaterThan(0);
    expect(job.events.filter(({ type }) => type === "job.sample").length).toBe(8);
    expect(job.progress.at(-1)).toMatchObject({ step: 4, total_steps: 4, percent: 100 });
    const lines = (await readFile(path.join(lab.deps.artifacts, "jobs", "tjob_1", "metrics.jsonl"), "utf8"))
      .trim()
      .split("\n");
    expect(lines.map((line) => (JSON.parse(line) as { step: number }).step)).toEqual([1, 2, 3, 4]);
    expect(await readdir(lab.deps.scratch)).toEqual([]);
  });

  test.each([
    ["an adapter", rltConfig({ warmup: sftConfig({}, 3).hyperparameters })],
    ["all parameters", rltConfig({ lora: null, warmup: sftConfig({}, 3).hyperparameters })],
    ["an adapter with a reference that is pulled", pulled(rltConfig())],
    ["all parameters with a reference that is pulled", pulled(rltConfig({ lora: null }))],
  ])("%s: interrupted at any step, it ends with the same numbers and the same weights", async (_, config) => {
    const stops = config.warmup ? [2, 4, 6] : [1, 3];
    const whole = startRun(lab, config, "tjob_whole");
    await run(whole);
    const metrics = new Map<number, unknown>();
    let aborted = 0;
    for (let attempt = 0; attempt < 10; attempt++) {
      const part = startRun(lab, config, "tjob_parts", (step, self) => {
        // After the step's metrics and before its checkpoint: what a kill there leaves behind.
        if (attempt < stops.length && step === stops[attempt]) self.abort();
      });
      const ended = await run(part).catch((error: { code: string }) => error.code);
      for (const [step, values] of part.metrics) metrics.set(step, values);
      if (typeof ended !== "string") break;
      expect(ended).toBe("interrupted");
      aborted++;
    }
    expect(aborted).toBe(stops.length);
    expect(Object.fromEntries(metrics)).toEqual(Object.fromEntries(whole.metrics));
    const last = (job: string): string => lab.checkpoints.filter(({ jobId }) => jobId === job).at(-1)!.id;
    expect(await weightsOf(last("tjob_parts"))).toEqual(await weightsOf(last("tjob_whole")));
  });

  test("a pause keeps a checkpoint, and what is resumed goes on from it", async () => {
    const first = startRun(lab, rltConfig(), "tjob_pause", (step, self) => step === 1 && self.ask("pause"));
    expect(await run(first)).toMatchObject({ outcome: "paused" });
    expect(lab.checkpoints.map(({ step }) => step)).toEqual([1]);
    const second = startRun(lab, rltConfig(), "tjob_pause");
    expect(await run(second)).toMatchObject({ outcome: "succeeded" });
    expect([...second.metrics.keys()]).toEqual([2, 3, 4]);
  });

  test("cancelled or out of budget, it keeps the last checkpoint", async () => {
    const cancelled = startRun(lab, rltConfig(), "tjob_cancel", (step, self) => step === 2 && self.ask("cancel"));
    expect(await run(cancelled)).toMatchObject({ outcome: "cancelled", result: { step: 2 } });
    const spent = startRun(lab, rltConfig({ budget: { tokens: 1, seconds: null } }), "tjob_budget");
    expect(await run(spent)).toMatchObject({ outcome: "budget", result: { step: 1, teacher: "mini@2" } });
  });

  test("old checkpoints go, the best and the last few stay", async () => {
    const config = rltConfig({ eval: { dataset: null, held_out: 0.1, rows: 2, publish: "last" } }, 5);
    Object.assign(config.hyperparameters, { save_steps: 1, save_total_limit: 2, eval_steps: 1 });
    await run(startRun(lab, config, "tjob_prune"));
    const kept = lab.checkpoints.filter(({ deletedAt }) => !deletedAt);
    expect(kept.filter(({ isBest }) => !isBest).length).toBeLessThanOrEqual(2);
    expect(lab.checkpoints.some(({ isBest }) => isBest)).toBe(true);
    for (const { id, deletedAt } of lab.checkpoints) {
      expect((await readdir(path.join(lab.deps.artifacts, "checkpoints"))).includes(id)).toBe(deletedAt === null);
    }
  });

  test("drawn in q8, learnt in fp32: what the two differ by is measured and weighed", async () => {
    const job = startRun(lab, rltConfig({ rollout_precision: "q8" }, 2), "tjob_q8");
    expect(await run(job)).toMatchObject({ outcome: "succeeded" });
    const first = job.metrics.get(1)!;
    // The reference and the policy are the same weights in the same precision.
    expect(first.kl).toBeLessThan(1e-6);
    expect(first["sampling/sampling_logp_difference/mean"]).toBeGreaterThan(1e-4);
    const [min, mean, max] = ["min", "mean", "max"].map((part) => first[`sampling/importance_sampling_ratio/${part}`]!);
    expect(min).toBeLessThan(1);
    expect(mean).toBeCloseTo(1, 1);
    expect(max).toBeGreaterThan(1);
    const plain = startRun(lab, rltConfig({}, 1), "tjob_fp32");
    await run(plain);
    expect(plain.metrics.get(1)!["sampling/sampling_logp_difference/mean"]).toBeLessThan(1e-5);
  });

  test.each(["last", "best"] as const)("the %s checkpoint is published", async (publish) => {
    const config = rltConfig({ eval: { dataset: null, held_out: 0.1, rows: 2, publish } }, 4);
    // Each step is a great leap anywhere: that every one of four is better than the one before is chance.
    Object.assign(config.hyperparameters, { eval_steps: 1, save_steps: 1, learning_rate: 0.3 });
    const job = startRun(lab, config, `tjob_${publish}`);
    const { result } = (await run(job)) as { result: { checkpoint: string; step: number } };
    const rewards = [...job.metrics.values()].map((values) => values.eval_reward!);
    const best = rewards.indexOf(Math.max(...rewards)) + 1;
    expect(best).toBeLessThan(4);
    expect(result.step).toBe(publish === "best" ? best : 4);
    expect(lab.published.at(-1)).toMatchObject({ checkpoint: { id: result.checkpoint, step: result.step } });
  });

  test("evaluation on another dataset leaves all rows to train on, and holds the job to it", async () => {
    const other = tasks(70).slice(60);
    const open = (hash: string) => ({
      ...lab.deps,
      dataset: async (id: string) => (id === "ds_other" ? datasetOf(other, hash) : lab.deps.dataset(id)),
    });
    const config = sftConfig({ eval: { dataset: "ds_other", held_out: 0, rows: 4, publish: "last" } }, 4);
    Object.assign(config.hyperparameters, { eval_steps: 2 });
    const job = startRun(lab, config, "tjob_eval", (step, self) => step === 2 && self.ask("pause"));
    await runTraining(open("sha256:a"), job.context);
    // One epoch is all 60 rows.
    expect(job.metrics.get(2)!.epoch).toBeCloseTo((2 * 8) / 60, 10);
    expect(job.metrics.get(2)!.eval_loss).toBeTypeOf("number");
    const changed = startRun(lab, config, "tjob_eval");
    await expect(runTraining(open("sha256:b"), changed.context)).rejects.toMatchObject({
      message: expect.stringMatching(/the eval\.dataset has changed/),
    });
    expect(await runTraining(open("sha256:a"), startRun(lab, config, "tjob_eval").context)).toMatchObject({
      outcome: "succeeded",
    });
  });

  test("it goes on only with what it began with", async () => {
    await run(startRun(lab, rltConfig(), "tjob_changed", (step, self) => step === 2 && self.ask("pause")));
    const changed = { ...lab, deps: { ...lab.deps, dataset: async () => datasetOf(tasks(60), "sha256:other") } };
    const again = startRun(changed, rltConfig(), "tjob_changed");
    await expect(runTraining(changed.deps, again.context)).rejects.toMatchObject({
      code: "conflict",
      message: expect.stringMatching(/dataset has changed/),
    });
  });
});

describe("sft", () => {
  test("the loss falls, held-out rows are judged, early stop ends it", async () => {
    const config = sftConfig({ eval: { dataset: null, held_out: 0.2, rows: 8, publish: "last" } }, 60);
    Object.assign(config.hyperparameters, { eval_steps: 5, save_steps: 20, learning_rate: 1e-2 });
    const job = startRun(lab, config, "tjob_sft");
    expect(await run(job)).toMatchObject({ outcome: "succeeded" });
    expect(job.metrics.get(60)!.loss!).toBeLessThan(0.7 * job.metrics.get(1)!.loss!);
    expect(job.metrics.get(60)!.eval_loss!).toBeLessThan(0.8 * job.metrics.get(5)!.eval_loss!);
    const hopeless = sftConfig({ eval: { dataset: null, held_out: 0.2, rows: 8, publish: "last" }, lora: LORA }, 30);
    Object.assign(hopeless.hyperparameters, { learning_rate: 0, eval_steps: 1, early_stopping_patience: 3 });
    const stopped = startRun(lab, hopeless, "tjob_early");
    expect(await run(stopped)).toMatchObject({ outcome: "succeeded", result: { step: 4, stopped_early: true } });
  });

  test("a row without an explanation is named", async () => {
    const rows = tasks(20);
    delete rows[7]!.reasoning_trace;
    const lacking = { ...lab.deps, dataset: async () => datasetOf(rows) };
    const job = startRun(lab, sftConfig(), "tjob_lacking");
    await expect(runTraining(lacking, job.context)).rejects.toMatchObject({
      message: expect.stringMatching(/row 8 has no reasoning_trace/),
    });
  });

  test("a loss that is no number fails the job and leaves the last good checkpoint", async () => {
    const config = sftConfig({}, 6);
    config.hyperparameters.learning_rate = 1e30;
    config.hyperparameters.max_grad_norm = 0;
    config.hyperparameters.warmup_ratio = 0.9;
    const job = startRun(lab, config, "tjob_nan");
    await expect(run(job)).rejects.toMatchObject({
      code: "loss_not_finite",
      message: expect.stringMatching(/^step \d, rows \d+, /),
    });
  });
});
