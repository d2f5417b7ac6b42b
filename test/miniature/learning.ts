/**
 * The method in miniature: a base that can take single steps, a teacher that was shown explanations good and bad, and its
 * reinforcement by the base's understanding. What npm run miniature measures, and what a shorter test asserts.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import type { EngineModel, OpenOptions, TrainingModel } from "../../src/engine/engine.ts";
import { createOnnxEngine } from "../../src/engine/onnx/engine.ts";
import type { Checkpoint } from "../../src/model/checkpoint.ts";
import { openCheckpoint } from "../../src/model/open.ts";
import { studentFormat, teacherFormat } from "../../src/rlt/formats.ts";
import { DEFAULT_COEFFICIENTS } from "../../src/rlt/reward.ts";
import { createTextService } from "../../src/text/client.ts";
import type { TextModel } from "../../src/text/text.ts";
import { type Hyperparameters, type RewardSpec, rltDefaults, sftDefaults } from "../../src/train/config.ts";
import { createPolicy, type Policy } from "../../src/train/policy.ts";
import { evaluate, type RltRun, rlt } from "../../src/train/rlt.ts";
import { FRESH, type RunReport } from "../../src/train/run.ts";
import { sft } from "../../src/train/sft.ts";
import { randomFrom } from "../bench/random.ts";
import { teacherRow } from "./corpus.ts";
import { STUDENT_FORMAT, TEACHER_FORMAT } from "./formats.ts";
import { miniatureConfig, modelConfig, randomWeights, writeModel } from "./model.ts";
import { PRETRAIN, pretrain } from "./pretrain.ts";
import { takeTasks } from "./tasks.ts";
import { END_ID } from "./vocabulary.ts";

const THREADS = 2;
const OPTIONS: OpenOptions = {
  precision: "fp32",
  contextLength: 256,
  threads: THREADS,
  device: "cpu",
  transient: true,
};
const DIFFICULTY: [number, number] = [4, 6];
const NEVER = new AbortController().signal;
const CLOCK = { now: () => performance.now() };

export interface LearningOptions {
  /** Of task rows, drawing and order; the base is the same for all. */
  seed: number;
  /** `random` pays for nothing in particular: what it teaches is the noise that the method must exceed. */
  reward: "student" | "random";
  warmupSteps: number;
  steps: number;
  questions: number;
  explanations: number;
  /** Held-out questions, each explained as often. */
  heldOut: number;
  log?: (step: number, values: Record<string, number>) => void;
}

export const LEARNING = { warmupSteps: 120, steps: 60, questions: 8, explanations: 32, heldOut: 32 } as const;

/** Mean held-out reward under the student, nats. */
export interface Learnt {
  before: number;
  after: number;
  seconds: number;
}

/** Writes the base into `directory`, which holds nothing yet. About two minutes on two cores. */
export async function makeBase(directory: string, log: (step: number, loss: number) => void): Promise<void> {
  const engine = createOnnxEngine({ cacheDir: `${directory}.cache` });
  const config = miniatureConfig();
  const empty = `${directory}.untrained`;
  await writeModel(empty, config, randomWeights(modelConfig(config), PRETRAIN.seed));
  const model = await engine.train(await openCheckpoint(empty), {
    trainable: { kind: "full" },
    threads: THREADS,
    device: "cpu",
  });
  const texts = createTextService();
  await pretrain(model, await texts.open(empty), { ...PRETRAIN, onStep: log });
  await model.save(directory, { state: false });
  await Promise.all([model.close(), texts.close(), rm(empty, { recursive: true })]);
}

interface Lab {
  checkpoint: Checkpoint;
  text: TextModel;
  base: EngineModel;
  training: TrainingModel;
  policy: Policy;
  /** The policy as it is, opened by itself. */
  frozen(): Promise<EngineModel>;
}

/** Warms a teacher up from the base, reinforces it, and measures it before and after. */
export async function learn(baseDirectory: string, options: LearningOptions): Promise<Learnt> {
  const scratch = await mkdtemp(path.join(tmpdir(), "preceptor-learning-"));
  const engine = createOnnxEngine({ cacheDir: scratch });
  const texts = createTextService();
  const checkpoint = await openCheckpoint(baseDirectory);
  const text = await texts.open(baseDirectory);
  const base = await engine.open(checkpoint, OPTIONS);
  const training = await engine.train(checkpoint, { trainable: { kind: "full" }, threads: THREADS, device: "cpu" });
  const policy = createPolicy({ training, checkpoint, full: { engine, options: OPTIONS }, base, scratch });
  const frozen = async (): Promise<EngineModel> => {
    const directory = path.join(scratch, "warmed-up");
    await training.save(directory, { state: false });
    // The optimizer forgets the warm-up.
    await policy.restore(directory);
    return engine.open(await openCheckpoint(directory), OPTIONS);
  };
  try {
    return await run({ checkpoint, text, base, training, policy, frozen }, options);
  } finally {
    await Promise.all([policy.close(), base.close(), texts.close()]);
    await rm(scratch, { recursive: true, force: true });
  }
}

async function run(lab: Lab, options: LearningOptions): Promise<Learnt> {
  const { text, base, policy } = lab;
  const { seed, warmupSteps, steps, questions, explanations } = options;
  const started = performance.now();
  await warmUp(lab, warmupSteps, seed);
  const reference = await lab.frozen();
  const student: RewardSpec = { type: "student", weight: 1, coefficients: DEFAULT_COEFFICIENTS };
  const next = randomFrom(seed);
  const hyperparameters: Hyperparameters = {
    ...rltDefaults("small", false),
    // Fifty times the paper's: 0.9 M parameters, all of them trained. At three times as much the signal is learnt in 20 steps,
    // but random rewards shake the policy by nats too: AdamW makes steps of noise as long as those of a signal.
    learning_rate: 5e-5,
    lr_scheduler_type: "constant_with_warmup",
    warmup_ratio: 0.08,
    num_generations: explanations,
    per_device_train_batch_size: explanations,
    gradient_accumulation_steps: questions,
    max_completion_length: 100,
    max_steps: steps,
  };
  const rlt_: RltRun = {
    policy,
    reference: async () => ({ engine: reference, adapter: null }),
    pull: null,
    corrects: false,
    hyperparameters,
    totalSteps: steps,
    seed,
    rows: takeTasks(2000, { seed, difficulty: DIFFICULTY }),
    numberOf: (row) => row,
    heldOut: [],
    rewards: options.reward === "student" ? [student] : [{ type: "http", weight: 1, url: RANDOM, timeout_seconds: 10 }],
    deps: {
      teacher: { text, format: teacherFormat(TEACHER_FORMAT), eosIds: [END_ID] },
      student: { engine: base, text, adapter: null, format: studentFormat(STUDENT_FORMAT) },
      temperature: hyperparameters.temperature,
      allowedHosts: [new URL(RANDOM).host],
      fetch: async () => Response.json({ reward: next() }),
    },
    report: silentReport(options.log),
    clock: CLOCK,
    signal: NEVER,
  };
  const judged = {
    ...rlt_,
    hyperparameters: { ...hyperparameters, num_generations: 8 },
    rewards: [student],
    heldOut: takeTasks(options.heldOut, { seed: HELD_OUT_SEED, split: "held_out", difficulty: DIFFICULTY }),
  };
  const before = await evaluate(judged);
  await rlt(rlt_, { ...FRESH });
  const after = await evaluate(judged);
  await reference.close();
  return { before, after, seconds: (performance.now() - started) / 1000 };
}

const RANDOM = "http://random.invalid/reward";
const HELD_OUT_SEED = 7;

async function warmUp({ text, policy }: Lab, steps: number, seed: number): Promise<void> {
  const tasks = takeTasks(6000, { seed, difficulty: DIFFICULTY });
  const hyperparameters = {
    ...sftDefaults("teacher", false),
    learning_rate: 5e-4,
    per_device_train_batch_size: 64,
    max_steps: steps,
  };
  await sft(
    {
      policy,
      hyperparameters,
      totalSteps: steps,
      seed,
      rows: tasks.length,
      numberOf: (row) => row,
      example: (row) => teacherRow(text, tasks[row]!),
      heldOut: [],
      report: silentReport(),
      clock: CLOCK,
      signal: NEVER,
    },
    { ...FRESH },
  );
}

function silentReport(log?: LearningOptions["log"]): RunReport {
  const nothing = async (): Promise<void> => undefined;
  return {
    metrics: async (step, values) => log?.(step, values),
    sample: nothing,
    progress: nothing,
    checkpoint: nothing,
    stop: () => null,
  };
}
