/** A disk that fills up while a job runs: a small file system of its own, which takes root to mount. */
import { execFileSync } from "node:child_process";
import { readdir, rm } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { TrainingConfig } from "../../src/train/config.ts";
import { runTraining } from "../../src/train/handler.ts";
import { MIB, mountSmallDisk } from "../e2e/small-disk.ts";
import { type Lab, openLab, type Run, rltConfig, sftConfig, startRun } from "./fixture.ts";

const disk = mountSmallDisk();
let lab: Lab;
beforeAll(async () => {
  lab = await openLab();
});
afterAll(async () => {
  await lab?.close();
  disk?.remove();
});
beforeEach(async () => {
  lab.checkpoints.length = 0;
  if (disk)
    for (const name of await readdir(disk.directory)) await rm(path.join(disk.directory, name), { recursive: true });
});

describe.skipIf(!disk)("a full disk (skipped where no file system can be mounted)", () => {
  const run = (job: Run) => runTraining({ ...lab.deps, artifacts: disk!.directory }, job.context);
  const folders = () => readdir(path.join(disk!.directory, "checkpoints"));
  test("while a checkpoint is written: the ones before stay, and a fork goes on from the last", async () => {
    const config = sftConfig({}, 4);
    Object.assign(config.hyperparameters, { save_steps: 1, save_total_limit: 10 });
    disk!.resize(100 * MIB);
    const whole = await run(startRun(lab, sftConfig({}, 1), "tjob_size"));
    expect(whole.outcome).toBe("succeeded");
    const size = Number(
      execFileSync("du", ["-sb", path.join(disk!.directory, "checkpoints")])
        .toString()
        .split("\t")[0],
    );
    disk!.resize(Math.ceil(3.5 * size));
    const job = startRun(lab, config, "tjob_full");
    await expect(run(job)).rejects.toMatchObject({
      code: "insufficient_storage",
      message: expect.stringMatching(/fork this job to go on from ckpt_\w+ \(step 2\)/),
    });
    const saved = lab.checkpoints.filter(({ jobId }) => jobId === "tjob_full").map(({ id }) => id);
    expect(saved).toHaveLength(2);
    // Nothing half written is left.
    expect((await folders()).sort()).toEqual(lab.checkpoints.map(({ id }) => id).sort());
    disk!.resize(100 * MIB);
    const fork: TrainingConfig = { ...config, from_checkpoint: saved[1]! };
    expect(await run(startRun(lab, fork, "tjob_fork"))).toMatchObject({ outcome: "succeeded", result: { step: 4 } });
  });

  test.each(["metrics", "weights that sample"])("while %s are written", async (what) => {
    disk!.resize(100 * MIB);
    // A page of the file has room for a few lines more.
    const config = rltConfig({}, 40);
    config.hyperparameters.save_steps = 0;
    const job = startRun(lab, config, "tjob_metrics");
    const { metrics } = job.context;
    job.context.metrics = async (step, values) => {
      await metrics(step, values);
      if (step === 2) {
        disk!.resize(MIB * 4);
        await disk!.fill();
      }
    };
    const there = what === "metrics" ? { artifacts: disk!.directory } : { scratch: disk!.directory };
    await expect(runTraining({ ...lab.deps, ...there }, job.context)).rejects.toMatchObject({
      code: "insufficient_storage",
      message: expect.stringMatching(/create the job again/),
    });
    expect(job.metrics.size).toBeLessThan(20);
  });
});
