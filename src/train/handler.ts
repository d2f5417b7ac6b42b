/** A training job from its last checkpoint to its end: opens what it needs, runs its phases, and publishes what came out. */
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import path from "node:path";
import type { Engine, EngineModel, OpenOptions, Trainable } from "../engine/engine.ts";
import { fail } from "../errors.ts";
import type { JobContext } from "../jobs/context.ts";
import type { HandlerResult } from "../jobs/finish.ts";
import type { JobQueue } from "../jobs/queue.ts";
import type { CheckpointRecord } from "../jobs/records.ts";
import type { AdapterFiles, Checkpoint } from "../model/checkpoint.ts";
import { type FormatSpec, studentFormat, teacherFormat } from "../rlt/formats.ts";
import type { TextModel } from "../text/text.ts";
import { createRunCheckpoints, type RunCheckpoints, weightsHashOf } from "./checkpoint.ts";
import { type TrainingConfig, totalSteps } from "./config.ts";
import { openMetricsFile } from "./metrics-file.ts";
import { createPolicy, type Policy } from "./policy.ts";
import { createReference, type Reference } from "./reference.ts";
import { rlt } from "./rlt.ts";
import { checkLength, type ExampleRow, studentRow, teacherRow } from "./rows.ts";
import { type Clock, FRESH, type RunReport, type RunState, type Stopped } from "./run.ts";
import { derivedSeed } from "./seeds.ts";
import { sft } from "./sft.ts";
import { openEventsFile } from "./tensorboard.ts";

/** A registered model, held in memory until `release`. */
export interface ServedModel {
  id: string;
  version: number;
  adapter: AdapterFiles | null;
  engine: EngineModel;
  text: TextModel;
  format: FormatSpec;
  contextLength: number;
  eosIds: readonly number[];
  release(): void;
}

/** One with its files, so that it can be trained. */
export interface ModelInUse extends ServedModel {
  checkpoint: Checkpoint;
  options: OpenOptions;
}

export interface TrainingRow {
  question: string;
  solution: string;
  reasoning_trace?: string | undefined;
}

export interface TrainingDataset {
  contentHash: string;
  count: number;
  row(index: number): Promise<TrainingRow>;
  split(heldOut: number, seed: number): Promise<{ train: number[]; heldOut: number[] }>;
}

export interface Published {
  role: "teacher" | "student";
  id: string;
  version: number;
}

export interface TrainingDeps {
  engine: Pick<Engine, "train" | "open">;
  use(model: string, role: "teacher" | "student", signal: AbortSignal): Promise<ModelInUse>;
  /** For scoring: may be a server of somebody else's. */
  serve(student: string, signal: AbortSignal): Promise<ServedModel>;
  dataset(id: string): Promise<TrainingDataset>;
  queue: Pick<JobQueue, "lastCheckpoint" | "listCheckpoints" | "removeCheckpoint" | "findCheckpoint" | "needing">;
  /** Makes a checkpoint the newest version of the model that was trained. */
  publish(request: { config: TrainingConfig; checkpoint: CheckpointRecord }): Promise<Published>;
  /** Folder of checkpoints and of what jobs leave behind. */
  artifacts: string;
  scratch: string;
  allowedHosts: readonly string[];
  fetch: typeof fetch;
  clock: Clock;
}

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
  const phases = { deps, config, model, student, dataset, rows, policy, report, signal, clock: deps.clock, onEnd };

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

interface Phase {
  deps: TrainingDeps;
  config: TrainingConfig;
  model: ModelInUse;
  student: ServedModel | null;
  dataset: TrainingDataset;
  rows: { train: number[]; heldOut: number[] };
  policy: Policy;
  report: RunReport;
  signal: AbortSignal;
  clock: Clock;
  onEnd(close: () => Promise<void> | void): void;
}

async function splitOf(
  dataset: TrainingDataset,
  config: TrainingConfig,
): Promise<{ train: number[]; heldOut: number[] }> {
  const { train, heldOut } = await dataset.split(config.eval?.held_out ?? 0, derivedSeed(config.seed, SPLIT));
  if (train.length === 0) throw fail("invalid_value", "the dataset has no row left to train on", { param: "dataset" });
  return { train, heldOut: heldOut.slice(0, config.eval?.rows ?? 0) };
}

async function runSft(
  phase: Phase,
  hyperparameters: TrainingConfig["hyperparameters"],
  role: "teacher" | "student",
  state: RunState,
): Promise<Stopped | null> {
  const { config, model, dataset, policy, report, signal, clock } = phase;
  const { train, heldOut } = phase.rows;
  const example = async (index: number) => {
    const { question, solution, reasoning_trace: trace } = await dataset.row(index);
    const row: ExampleRow = { question, solution, explanation: trace ?? "" };
    if (role === "teacher" && trace === undefined) {
      throw fail(
        "invalid_value",
        `row ${index + 1} has no reasoning_trace, from which a teacher would learn to explain`,
        { param: "dataset" },
      );
    }
    const sequence =
      role === "teacher"
        ? await teacherRow(model.text, teacherFormat(model.format), row)
        : await studentRow(model.text, studentFormat(model.format), row);
    checkLength(sequence, model.contextLength, index);
    return sequence;
  };
  return sft(
    {
      policy,
      hyperparameters,
      totalSteps: totalSteps(hyperparameters, train.length),
      seed: config.seed,
      rows: train.length,
      example: (row) => example(train[row]!),
      heldOut: await Promise.all(heldOut.map(example)),
      report,
      clock,
      signal,
    },
    state,
  );
}

async function runRlt(phase: Phase, state: RunState, reference: Reference): Promise<Stopped | null> {
  const { deps, config, model, student, dataset, policy, report, signal, clock } = phase;
  const { hyperparameters } = config;
  const { train, heldOut } = phase.rows;
  const rows = (indices: readonly number[]) => Promise.all(indices.map((index) => dataset.row(index)));
  return rlt(
    {
      policy,
      reference: hyperparameters.beta > 0 ? reference.current : null,
      pull: hyperparameters.sync_ref_model
        ? () => reference.pull(policy.training, hyperparameters.ref_model_mixup_alpha)
        : null,
      hyperparameters,
      totalSteps: totalSteps(hyperparameters, train.length),
      seed: config.seed,
      rows: await rows(train),
      heldOut: await rows(heldOut),
      rewards: config.rewards,
      deps: {
        teacher: { text: model.text, format: teacherFormat(model.format), eosIds: model.eosIds },
        student: student && {
          engine: student.engine,
          adapter: student.adapter,
          text: student.text,
          format: studentFormat(student.format),
        },
        temperature: hyperparameters.temperature,
        allowedHosts: deps.allowedHosts,
        fetch: deps.fetch,
      },
      report,
      clock,
      signal,
    },
    state,
  );
}

interface Saving {
  deps: TrainingDeps;
  context: JobContext;
  config: TrainingConfig;
  checkpoints: RunCheckpoints;
  policy: Policy;
  kind: "adapter" | "full";
  hashes: { dataset: string; weights: string };
  /** Steps before those of the phase. */
  offset: () => number;
  allSteps: number;
  reference: () => string | null;
}

async function createReport(saving: Saving, fromStep: number): Promise<RunReport> {
  const { deps, context, config } = saving;
  const folder = path.join(deps.artifacts, "jobs", context.job.id);
  const file = await openMetricsFile(path.join(folder, "metrics.jsonl"), fromStep);
  const board = await openEventsFile(folder, fromStep, () => Date.now() / 1000);
  return {
    async metrics(step, values) {
      await context.metrics(step + saving.offset(), values);
      await file.append(step + saving.offset(), values);
      await board.append(step + saving.offset(), values);
    },
    sample: (sample) => context.event("job.sample", sample),
    progress: (state) => context.progress(progressOf(state, saving)),
    checkpoint: (state, how) => saveCheckpoint(saving, state, how),
    stop(state) {
      if (context.signal.aborted)
        throw fail("interrupted", "the worker stops; the job goes on from its last checkpoint");
      return context.wanted() ?? (isSpent(config, state) ? "budget" : null);
    },
  };
}

function progressOf(state: RunState, { offset, allSteps }: Saving) {
  const step = state.step + offset();
  return {
    step,
    phase: state.phase,
    total_steps: allSteps,
    percent: (100 * step) / allSteps,
    eta_seconds: step === 0 ? null : (state.seconds / step) * (allSteps - step),
    tokens_sampled: state.tokensSampled,
    tokens_scored: state.tokensScored,
    tokens_trained: state.tokensTrained,
  };
}

function isSpent({ budget }: TrainingConfig, state: RunState): boolean {
  const tokens = state.tokensSampled + state.tokensScored + state.tokensTrained;
  return tokens >= (budget.tokens ?? Infinity) || state.seconds >= (budget.seconds ?? Infinity);
}

const CHECKPOINT_ID_BYTES = 12;

async function saveCheckpoint(saving: Saving, state: RunState, how: { best: boolean }): Promise<void> {
  const { context, config, checkpoints, policy, kind, hashes } = saving;
  const id = `ckpt_${randomBytes(CHECKPOINT_ID_BYTES).toString("hex")}`;
  const directory = await checkpoints.save(id, { training: policy.training, state, reference: saving.reference() });
  const weightsHash = await weightsHashOf(directory, kind);
  await context.checkpoint({
    id,
    step: state.step + saving.offset(),
    kind,
    artifact: `checkpoints/${id}`,
    weightsHash,
    config: {
      method: config.method,
      model: config.model,
      config_hash: context.job.configHash,
      phase: state.phase,
      ...hashes,
    },
    isBest: how.best,
  });
  await prune(saving);
}

/** Keeps the last few and the best one. */
async function prune({ deps, context, config, checkpoints }: Saving): Promise<void> {
  const { rows } = await deps.queue.listCheckpoints({ jobId: context.job.id, limit: 100, order: "desc" });
  const old = rows.slice(config.hyperparameters.save_total_limit).filter(({ isBest }) => !isBest);
  for (const { id } of old) {
    // A fork, or a job whose teacher or student it is, may wait for it.
    if ((await deps.queue.needing(id)).length > 0) continue;
    await deps.queue.removeCheckpoint(id);
    await checkpoints.remove(checkpoints.directoryOf(id));
  }
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
