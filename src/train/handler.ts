/** A training job from its last checkpoint to its end: opens what it needs, runs its phases, and publishes what came out. */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import path from "node:path";
import type { Trainable } from "../engine/engine.ts";
import { fail } from "../errors.ts";
import type { JobContext } from "../jobs/context.ts";
import type { HandlerResult } from "../jobs/finish.ts";
import type { CheckpointRecord } from "../jobs/records.ts";
import { createRunCheckpoints } from "./checkpoint.ts";
import { type TrainingConfig, totalSteps } from "./config.ts";
import type { ModelInUse, TrainingDataset, TrainingDeps } from "./job-deps.ts";
import { runRlt, runSft } from "./phases.ts";
import { createPolicy } from "./policy.ts";
import { createReport, type Saving } from "./record.ts";
import { createReference } from "./reference.ts";
import { FRESH, type RunState, type Stopped } from "./run.ts";
import { derivedSeed } from "./seeds.ts";

export async function runTraining(deps: TrainingDeps, context: JobContext): Promise<HandlerResult> {
  const config = context.job.config as TrainingConfig;
  const stack: (() => Promise<void> | void)[] = [];
  try {
    return await train(deps, context, config, (close) => stack.push(close));
  } finally {
    for (const close of stack.reverse()) await close();
  }
}

async function train(
  deps: TrainingDeps,
  context: JobContext,
  config: TrainingConfig,
  onEnd: (close: () => Promise<void> | void) => void,
): Promise<HandlerResult> {
  const { signal, job } = context;
  const role = config.method === "rlt" ? "teacher" : config.role;
  const model = await deps.use(config.model, role, signal);
  onEnd(model.release);
  const student = config.student === null ? null : await deps.serve(config.student, signal);
  if (student) onEnd(student.release);
  const dataset = await deps.dataset(config.dataset);
  await mkdir(deps.scratch, { recursive: true });
  const scratch = await mkdtemp(path.join(deps.scratch, `${job.id}-`));
  onEnd(() => rm(scratch, { recursive: true, force: true }));

  const checkpoints = createRunCheckpoints(path.join(deps.artifacts, "checkpoints"));
  const own = await deps.queue.lastCheckpoint(job.id);
  const before = own ?? (await forkedFrom(deps, config));
  // A fork may go on with other rows, but not from other weights.
  const then = own ?? (before && { config: { ...(before.config as object), dataset: dataset.contentHash } });
  if (then) requireSame(then, { dataset: dataset.contentHash, weights: model.checkpoint.weightsHash });
  const resumed = before && (await checkpoints.read(checkpoints.directoryOf(before.id)));
  const state: RunState = resumed?.state ?? { ...FRESH, phase: config.warmup ? "warmup" : "main" };

  const trainable = trainableOf(config, model);
  const training = await deps.engine.train(model.checkpoint, {
    trainable,
    threads: model.options.threads,
    device: model.options.device,
  });
  const full = trainable.kind === "full" ? { engine: deps.engine, options: model.options } : null;
  const base = { engine: model.engine, adapter: model.adapter };
  const reference = createReference({ base, checkpoint: model.checkpoint, full, scratch }, resumed?.reference ?? null);
  onEnd(() => reference.close());
  const policy = createPolicy({ training, checkpoint: model.checkpoint, full, base: model.engine, scratch });
  onEnd(() => policy.close());
  if (before) await policy.restore(checkpoints.directoryOf(before.id));

  const kind: Saving["kind"] = full ? "full" : "adapter";
  const hashes = { dataset: dataset.contentHash, weights: model.checkpoint.weightsHash };
  const rows = await splitOf(dataset, config);
  // Steps are counted through: those of the warm-up come first.
  const warmupSteps = config.warmup ? totalSteps(config.warmup, rows.train.length) : 0;
  const offset = (): number => (state.phase === "main" ? warmupSteps : 0);
  const allSteps = warmupSteps + totalSteps(config.hyperparameters, rows.train.length);
  const saving = {
    deps,
    context,
    config,
    checkpoints,
    policy,
    kind,
    hashes,
    offset,
    allSteps,
    reference: reference.directory,
  };
  const report = await createReport(saving, state.step + offset());
  const phases = { deps, config, model, student, dataset, rows, policy, report, signal, clock: deps.clock };

  let stopped: Stopped | null = null;
  if (state.phase === "warmup") {
    stopped = await runSft(phases, config.warmup!, "teacher", state);
    if (!stopped) {
      const warmed = path.join(scratch, "warmed-up");
      await training.save(warmed, { state: false });
      await reference.set(warmed);
      // The optimizer's memory is of another loss.
      await policy.restore(warmed);
      Object.assign(state, { phase: "main", step: 0, best: null, worse: 0 });
    }
  }
  if (!stopped) {
    stopped =
      config.method === "sft"
        ? await runSft(phases, config.hyperparameters, config.role, state)
        : await runRlt(phases, state, reference);
  }
  return outcome(saving, stopped);
}

async function outcome(saving: Saving, stopped: Stopped | null): Promise<HandlerResult> {
  const { deps, context, config } = saving;
  if (stopped === "pause") return { outcome: "paused" };
  const last = await deps.queue.lastCheckpoint(context.job.id);
  const result = last ? { checkpoint: last.id, step: last.step } : {};
  if (stopped === "cancel") return { outcome: "cancelled", result };
  const published = last && (await deps.publish({ config, checkpoint: last }));
  const named = published ? { [published.role]: `${published.id}@${published.version}` } : {};
  return {
    outcome: stopped === "budget" ? "budget" : "succeeded",
    result: { ...result, ...named, stopped_early: stopped === "early" },
  };
}

function trainableOf({ lora, seed }: TrainingConfig, { adapter }: ModelInUse): Trainable {
  if (!lora) {
    if (!adapter) return { kind: "full" };
    throw fail(
      "invalid_value",
      "this model has an adapter, whose base cannot be trained in full; train with lora, or merge it first",
      {
        param: "full",
      },
    );
  }
  if (adapter) return { kind: "adapter", adapter };
  const { r, lora_alpha, use_rslora, target_modules } = lora;
  return {
    kind: "lora",
    lora: { rank: r, alpha: lora_alpha, rsLora: use_rslora, targets: target_modules, seed: derivedSeed(seed, LORA) },
  };
}

/** What a seed is derived for. */
const LORA = 1;
const SPLIT = 2;

async function splitOf(
  dataset: TrainingDataset,
  config: TrainingConfig,
): Promise<{ train: number[]; heldOut: number[] }> {
  const { train, heldOut } = await dataset.split(config.eval?.held_out ?? 0, derivedSeed(config.seed, SPLIT));
  if (train.length === 0) throw fail("invalid_value", "the dataset has no row left to train on", { param: "dataset" });
  return { train, heldOut: heldOut.slice(0, config.eval?.rows ?? 0) };
}

async function forkedFrom({ queue }: TrainingDeps, config: TrainingConfig): Promise<CheckpointRecord | undefined> {
  if (config.from_checkpoint === null) return undefined;
  const found = await queue.findCheckpoint(config.from_checkpoint);
  if (found && !found.deletedAt) return found;
  throw fail("invalid_checkpoint", `the checkpoint ${config.from_checkpoint}, from which this job goes on, is gone`);
}

/** A run that goes on must go on with what it began with. */
function requireSame({ config }: Pick<CheckpointRecord, "config">, now: { dataset: string; weights: string }): void {
  const then = config as { dataset: string; weights: string };
  const changed = then.dataset !== now.dataset ? "dataset" : then.weights !== now.weights ? "model" : null;
  if (changed) {
    throw fail(
      "conflict",
      `the ${changed} has changed since this job began, so it cannot go on; fork its last checkpoint instead`,
    );
  }
}
