/** A training job from its last checkpoint to its end: opens what it needs, runs its phases, and publishes what came out. */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import path from "node:path";
import { isDiskFull } from "../disk-full.ts";
import type { Trainable } from "../engine/engine.ts";
import { fail, PreceptorError } from "../errors.ts";
import type { JobContext } from "../jobs/context.ts";
import type { HandlerResult } from "../jobs/finish.ts";
import type { CheckpointRecord } from "../jobs/records.ts";
import { createRunCheckpoints } from "./checkpoint.ts";
import { type TrainingConfig, totalSteps } from "./config.ts";
import type { ModelInUse, TrainingDataset, TrainingDeps } from "./job-deps.ts";
import { type Phase, runRlt, runSft } from "./phases.ts";
import { createPolicy } from "./policy.ts";
import { createReport, type RunHashes, type Saving } from "./record.ts";
import { createReference } from "./reference.ts";
import { FRESH, type RunState, type Stopped } from "./run.ts";
import { derivedSeed } from "./seeds.ts";

export async function runTraining(deps: TrainingDeps, context: JobContext): Promise<HandlerResult> {
  const config = context.job.config as TrainingConfig;
  const stack: (() => Promise<void> | void)[] = [];
  try {
    return await train(deps, context, config, (close) => stack.push(close));
  } catch (error) {
    throw isDiskFull(error) || (error instanceof PreceptorError && error.code === "insufficient_storage")
      ? await diskFull(deps, context.job.id, error)
      : error;
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
  const rollouts = config.rollout_precision ?? "fp32";
  const model = await deps.use(config.model, { role, rollouts, signal });
  onEnd(model.release);
  const student = config.student === null ? null : await deps.serve(config.student, signal);
  if (student) onEnd(student.release);
  const dataset = await deps.dataset(config.dataset);
  const heldOut = config.eval?.dataset ? await deps.dataset(config.eval.dataset) : null;
  await mkdir(deps.scratch, { recursive: true });
  const scratch = await mkdtemp(path.join(deps.scratch, `${job.id}-`));
  onEnd(() => rm(scratch, { recursive: true, force: true }));

  const checkpoints = createRunCheckpoints(path.join(deps.artifacts, "checkpoints"));
  const own = await deps.queue.lastCheckpoint(job.id);
  const before = own ?? (await forkedFrom(deps, config));
  // A fork may go on with other rows, but not from other weights.
  const then =
    own ??
    (before && {
      config: { ...(before.config as object), dataset: dataset.contentHash, eval_dataset: heldOut?.contentHash },
    });
  const hashes: RunHashes = {
    dataset: dataset.contentHash,
    weights: model.checkpoint.weightsHash,
    ...(heldOut ? { eval_dataset: heldOut.contentHash } : {}),
  };
  if (then) requireSame(then, hashes);
  const resumed = before && (await checkpoints.read(checkpoints.directoryOf(before.id)));
  const state: RunState = resumed?.state ?? { ...FRESH, phase: config.warmup ? "warmup" : "main" };
  // A fork finds the best of its own checkpoints.
  if (!own) Object.assign(state, { best: null, worse: 0 });

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
  const policy = createPolicy({ training, checkpoint: model.checkpoint, full, base: model.sampler, scratch });
  onEnd(() => policy.close());
  if (before) await policy.restore(checkpoints.directoryOf(before.id));

  const kind: Saving["kind"] = full ? "full" : "adapter";
  const rows = await rowsOf(dataset, heldOut, config);
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
  // From here on a worker that is lost was lost in a step.
  await report.progress(state);
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

/** Whatever could not be written: a checkpoint, metrics, or weights on their way to what serves them. */
async function diskFull({ queue }: TrainingDeps, job: string, cause: unknown): Promise<PreceptorError> {
  const last = await queue.lastCheckpoint(job).catch(() => undefined);
  const then = last
    ? `fork this job to go on from ${last.id} (step ${last.step}), which is whole`
    : "create the job again; it had saved nothing yet";
  return fail(
    "insufficient_storage",
    `the disk is full. Free some space (DELETE /v1/checkpoints/{id} removes what is no longer needed), then ${then}`,
    { cause },
  );
}

async function outcome(saving: Saving, stopped: Stopped | null): Promise<HandlerResult> {
  const { deps, context, config } = saving;
  if (stopped === "pause") return { outcome: "paused" };
  const last = await deps.queue.lastCheckpoint(context.job.id);
  const best = config.eval?.publish === "best" ? await deps.queue.bestCheckpoint(context.job.id) : undefined;
  const chosen = stopped === "cancel" ? last : (best ?? last);
  const result = chosen ? { checkpoint: chosen.id, step: chosen.step } : {};
  if (stopped === "cancel") return { outcome: "cancelled", result };
  const published = chosen && (await deps.publish({ config, checkpoint: chosen }));
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

/** Which rows are trained on, and which are looked at: some of the dataset's own, or the first of another's. */
async function rowsOf(
  dataset: TrainingDataset,
  other: TrainingDataset | null,
  { eval: asked, seed }: TrainingConfig,
): Promise<Phase["rows"]> {
  const { train, heldOut } = await dataset.split(asked?.held_out ?? 0, derivedSeed(seed, SPLIT));
  if (train.length === 0) throw fail("invalid_value", "the dataset has no row left to train on", { param: "dataset" });
  const most = asked?.rows ?? 0;
  if (!other) return { train, heldOut: { dataset, indices: heldOut.slice(0, most), param: "dataset" } };
  const indices = Array.from({ length: Math.min(most, other.count) }, (_, i) => i);
  return { train, heldOut: { dataset: other, indices, param: "eval.dataset" } };
}

async function forkedFrom({ queue }: TrainingDeps, config: TrainingConfig): Promise<CheckpointRecord | undefined> {
  if (config.from_checkpoint === null) return undefined;
  const found = await queue.findCheckpoint(config.from_checkpoint);
  if (found && !found.deletedAt) return found;
  throw fail("invalid_checkpoint", `the checkpoint ${config.from_checkpoint}, from which this job goes on, is gone`);
}

const CHANGED = { dataset: "dataset", eval_dataset: "eval.dataset", weights: "model" } as const;

/** A run that goes on must go on with what it began with. */
function requireSame({ config }: Pick<CheckpointRecord, "config">, now: RunHashes): void {
  const then = config as RunHashes;
  const changed = (Object.keys(CHANGED) as (keyof RunHashes)[]).find((name) => then[name] !== now[name]);
  if (changed) {
    throw fail(
      "conflict",
      `the ${CHANGED[changed]} has changed since this job began, so it cannot go on; fork its last checkpoint instead`,
    );
  }
}
