import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import type { EngineModel, OpenOptions } from "../../src/engine/engine.ts";
import { createOnnxEngine } from "../../src/engine/onnx/engine.ts";
import type { JobContext } from "../../src/jobs/context.ts";
import type { CheckpointRecord, JobRecord, NewCheckpoint, Wanted } from "../../src/jobs/records.ts";
import { openCheckpoint } from "../../src/model/open.ts";
import type { FormatSpec } from "../../src/rlt/formats.ts";
import { DEFAULT_COEFFICIENTS } from "../../src/rlt/reward.ts";
import { createTextService } from "../../src/text/client.ts";
import type { TextModel } from "../../src/text/text.ts";
import { rltDefaults, sftDefaults, TARGET_MODULES, type TrainingConfig } from "../../src/train/config.ts";
import type { TrainingDataset, TrainingDeps, TrainingRow } from "../../src/train/job-deps.ts";
import { STUDENT_FORMAT, TEACHER_FORMAT } from "../miniature/formats.ts";
import { miniatureConfig, modelConfig, randomWeights, writeModel } from "../miniature/model.ts";
import { takeTasks } from "../miniature/tasks.ts";
import { END_ID } from "../miniature/vocabulary.ts";

/** Small enough that a step takes a tenth of a second. */
const SMALL = {
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 2,
  head_dim: 16,
};
const OPTIONS: OpenOptions = { precision: "fp32", contextLength: 256, threads: 1, device: "cpu", transient: true };

export interface Lab {
  deps: TrainingDeps;
  text: TextModel;
  base: EngineModel;
  published: unknown[];
  checkpoints: CheckpointRecord[];
  close(): Promise<void>;
}

/** What a lab trains, and as teacher and student what it is prompted with. */
export interface LabModel {
  /** A checkpoint with its tokenizer. */
  directory: string;
  options: OpenOptions;
  formats: Record<"teacher" | "student", FormatSpec>;
  eosIds: readonly number[];
}

const MINIATURE: Omit<LabModel, "directory"> = {
  options: OPTIONS,
  formats: { teacher: TEACHER_FORMAT, student: STUDENT_FORMAT },
  eosIds: [END_ID],
};

async function writeSmall(directory: string): Promise<string> {
  const config = miniatureConfig("llama", SMALL);
  await writeModel(directory, config, randomWeights(modelConfig(config), 3));
  return directory;
}

export async function openLab(rows: TrainingRow[] = tasks(60), given?: LabModel): Promise<Lab> {
  const folder = await mkdtemp(path.join(tmpdir(), "preceptor-train-"));
  const { directory, options, formats, eosIds } = given ?? {
    ...MINIATURE,
    directory: await writeSmall(path.join(folder, "model")),
  };
  const engine = createOnnxEngine({ cacheDir: path.join(folder, "cache") });
  const texts = createTextService();
  const checkpoint = await openCheckpoint(directory);
  const text = await texts.open(directory);
  const base = await engine.open(checkpoint, options);
  const published: unknown[] = [];
  const checkpoints: CheckpointRecord[] = [];
  const fast = await engine.open(checkpoint, { ...OPTIONS, precision: "q8", transient: false });
  const use: TrainingDeps["use"] = async (model, { role, rollouts }) => ({
    sampler: rollouts === "q8" ? fast : base,
    id: model,
    version: 1,
    checkpoint,
    adapter: null,
    engine: base,
    options,
    text,
    format: formats[role],
    contextLength: options.contextLength,
    eosIds,
    release: () => undefined,
  });
  const deps: TrainingDeps = {
    engine,
    use,
    serve: (model, signal) => use(model, { role: "student", rollouts: "fp32", signal }),
    dataset: async () => datasetOf(rows),
    queue: {
      lastCheckpoint: async (jobId) => checkpoints.filter((one) => one.jobId === jobId && !one.deletedAt).at(-1),
      bestCheckpoint: async (jobId) => checkpoints.findLast((one) => one.jobId === jobId && one.isBest),
      listCheckpoints: async ({ jobId }) => ({
        rows: checkpoints.filter((one) => one.jobId === jobId && !one.deletedAt).reverse(),
        hasMore: false,
      }),
      findCheckpoint: async (id) => checkpoints.find((one) => one.id === id && !one.deletedAt),
      needing: async () => [],
      async removeCheckpoint(id) {
        for (const one of checkpoints) if (one.id === id) one.deletedAt = new Date();
        return true;
      },
    },
    async publish(request) {
      published.push(request);
      return { role: request.config.method === "rlt" ? "teacher" : request.config.role, id: "mini", version: 2 };
    },
    artifacts: path.join(folder, "artifacts"),
    scratch: path.join(folder, "scratch"),
    allowedHosts: [],
    fetch,
    clock: { now: () => performance.now() },
  };
  return {
    deps,
    text,
    base,
    published,
    checkpoints,
    async close() {
      await Promise.all([base.close(), fast.close(), texts.close()]);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

export function tasks(count: number): TrainingRow[] {
  return takeTasks(count, { seed: 4, difficulty: [1, 2] }).map(({ question, solution, explanation }) => ({
    question,
    solution,
    reasoning_trace: explanation,
  }));
}

export function datasetOf(rows: TrainingRow[], contentHash = "sha256:rows"): TrainingDataset {
  return {
    contentHash,
    count: rows.length,
    row: async (index) => rows[index]!,
    async split(heldOut) {
      const cut = Math.round(rows.length * (1 - heldOut));
      const all = rows.map((_, i) => i);
      return { train: all.slice(0, cut), heldOut: all.slice(cut) };
    },
  };
}

export const LORA = { r: 4, lora_alpha: 8, target_modules: [...TARGET_MODULES], use_rslora: false };

export function rltConfig(changes: Partial<TrainingConfig> = {}, steps = 4): TrainingConfig {
  return {
    method: "rlt",
    role: "teacher",
    model: "mini",
    student: "mini",
    dataset: "ds_rows",
    hyperparameters: {
      ...rltDefaults("small", true),
      learning_rate: 5e-3,
      per_device_train_batch_size: 4,
      gradient_accumulation_steps: 2,
      num_generations: 4,
      max_completion_length: 12,
      max_steps: steps,
      save_steps: 2,
    },
    lora: LORA,
    warmup: null,
    rewards: [{ type: "student", weight: 1, coefficients: DEFAULT_COEFFICIENTS }],
    rollout_precision: "fp32",
    eval: null,
    budget: { tokens: null, seconds: null },
    seed: 11,
    from_checkpoint: null,
    suffix: null,
    ...changes,
  };
}

export function sftConfig(changes: Partial<TrainingConfig> = {}, steps = 6): TrainingConfig {
  const hyperparameters = {
    ...sftDefaults("teacher", false),
    learning_rate: 3e-3,
    per_device_train_batch_size: 8,
    max_steps: steps,
    save_steps: 2,
  };
  return { ...rltConfig(), method: "sft", student: null, hyperparameters, lora: null, rewards: [], ...changes };
}

export interface Run {
  context: JobContext;
  /** By step, times left out: they are never the same twice. */
  metrics: Map<number, Record<string, number>>;
  events: { type: string; data: unknown }[];
  progress: Record<string, unknown>[];
  ask(wanted: Wanted | null): void;
  /** What a killed process looks like from inside: the next look at the signal throws. */
  abort(): void;
}

/** A job as its runner hands it over. `atStep`: called after the metrics of each step. */
export function startRun(
  lab: Lab,
  config: TrainingConfig,
  id = "tjob_1",
  atStep: (step: number, run: Run) => void = () => undefined,
): Run {
  const ending = new AbortController();
  let wanted: Wanted | null = null;
  const run: Run = {
    metrics: new Map(),
    events: [],
    progress: [],
    ask: (what) => {
      wanted = what;
    },
    abort: () => ending.abort(),
    context: {
      job: { id, config, configHash: "sha256:config" } as unknown as JobRecord,
      signal: ending.signal,
      wanted: () => wanted,
      async event(type, data) {
        run.events.push({ type, data });
      },
      async metrics(step, values) {
        const timeless = Object.entries(values).filter(([name]) => !/time/.test(name));
        run.metrics.set(step, Object.fromEntries(timeless));
        atStep(step, run);
      },
      async progress(progress) {
        run.progress.push(progress);
      },
      async checkpoint(checkpoint: NewCheckpoint) {
        lab.checkpoints.push({
          ...checkpoint,
          jobId: id,
          isBest: checkpoint.isBest ?? false,
          createdAt: new Date(),
          deletedAt: null,
        });
      },
    },
  };
  return run;
}
