/** What a job will cost, from its configuration and a few of its rows; nothing is queued or loaded. */

import type { JobQueue } from "../../../jobs/queue.ts";
import type { ModelConfig } from "../../../model/checkpoint.ts";
import { studentFormat, teacherFormat } from "../../../rlt/formats.ts";
import { studentText, teacherPrompt, teacherText } from "../../../rlt/prompts.ts";
import { type Hyperparameters, rowsPerStep, type TrainingConfig, totalSteps } from "../../../train/config.ts";
import { mean } from "../../../train/run.ts";
import { formatOf } from "../../models/version.ts";
import { type CheckDeps, type CheckedJob, checkJob } from "../jobs/check.ts";
import { asRequest, type CreateTrainingJob } from "../jobs/request-schemas.ts";
import { KINDS } from "../jobs/resource.ts";
import type { Estimate } from "./schemas.ts";

export interface EstimateService {
  /** Refuses what creating the job would refuse. */
  estimate(request: CreateTrainingJob): Promise<Estimate>;
}

export interface EstimateDeps extends CheckDeps {
  queue: Pick<JobQueue, "list">;
  threads: number;
}

/** Rows whose length is measured. */
const ROWS_MEASURED = 8;
/** Of one thread of an ordinary processor, in products of matrices as small as those of a training step. */
const ASSUMED_FLOPS = 1e10;
/** Forward 2 per parameter and token, backward 4; a token that is sampled waits for the weights from memory, about as long as 6. */
const FLOP_PER_PARAMETER = 6;
const FLOAT_BYTES = 4;

export function createEstimateService(deps: EstimateDeps): EstimateService {
  return {
    async estimate(request) {
      const job = await checkJob(deps, asRequest(request));
      const { config, prepared, rows, steps } = job;
      const tokens = await tokensOf(job);
      const all = tokens.sampled + tokens.scored + tokens.trained;
      const { parameters, config: model } = prepared.checkpoint;
      const rate = (await measured(deps.queue, config)) ?? assumed(deps.threads, parameters);
      const learning = config.lora ? loraParameters(model, config.lora) : parameters;
      // Weights that learn have a gradient and two moments each; those of an adapter come on top of the base.
      const memory = FLOAT_BYTES * (parameters + (config.lora ? learning : 0) + 3 * learning);
      // Weights and both moments; the last ones, the best one, and the one that is being written.
      const disk = 3 * FLOAT_BYTES * learning * (config.hyperparameters.save_total_limit + 2);
      return {
        object: "training.estimate",
        steps,
        rows,
        tokens,
        seconds: all / rate.tokens_per_second,
        rate,
        memory_bytes: memory,
        disk_bytes: disk,
        config: { ...config },
      };
    },
  };
}

async function tokensOf(job: CheckedJob): Promise<Estimate["tokens"]> {
  const { config, rows } = job;
  const { method, role, hyperparameters: h, warmup } = config;
  const examples = (each: Hyperparameters, length: number): number =>
    totalSteps(each, rows) * rowsPerStep(each) * length;
  if (method === "sft") return whole({ trained: examples(h, await exampleTokens(job, role)) });
  const prompt = await promptTokens(job);
  const explanations = totalSteps(h, rows) * h.per_device_train_batch_size * h.gradient_accumulation_steps;
  const { max_completion_length: most } = h;
  const readers = config.rewards.filter(({ type }) => type === "student").length;
  return whole({
    sampled: explanations * most,
    scored: explanations * readers * (prompt + most),
    trained: explanations * (prompt + most) + (warmup ? examples(warmup, await exampleTokens(job, "teacher")) : 0),
  });
}

const whole = ({ sampled = 0, scored = 0, trained = 0 }: Partial<Estimate["tokens"]>): Estimate["tokens"] => ({
  sampled: Math.ceil(sampled),
  scored: Math.ceil(scored),
  trained: Math.ceil(trained),
});

async function someRows({ dataset }: CheckedJob) {
  return Promise.all(Array.from({ length: Math.min(dataset.count, ROWS_MEASURED) }, (_, i) => dataset.row(i)));
}

async function promptTokens(job: CheckedJob): Promise<number> {
  const format = teacherFormat(formatOf(job.version, "teacher"));
  const lengths = (await someRows(job)).map(async ({ question, solution }) => {
    const { ids } = await job.prepared.text.encodePrompt(teacherPrompt(format, question, solution));
    return ids.length;
  });
  return mean(await Promise.all(lengths));
}

async function exampleTokens(job: CheckedJob, role: "teacher" | "student"): Promise<number> {
  const format = formatOf(job.version, role);
  const lengths = (await someRows(job)).map(async ({ question, solution, reasoning_trace: trace = "" }) => {
    const request =
      role === "teacher"
        ? teacherText(teacherFormat(format), question, solution, trace)
        : studentText(studentFormat(format), question, solution, trace);
    const { ids } = await job.prepared.text.encodePrompt({ ...request, endOfTurn: true });
    return ids.length;
  });
  return mean(await Promise.all(lengths));
}

/** Of the newest job of the same kind on the same model that ran through without a stop. */
async function measured(queue: EstimateDeps["queue"], config: TrainingConfig): Promise<Estimate["rate"] | undefined> {
  const kinds = [KINDS[config.method]];
  const { rows } = await queue.list({ kinds, status: "succeeded", limit: 100, order: "desc" });
  const idOf = ({ model }: TrainingConfig): string => model.split("@")[0]!;
  for (const { id, attempts, startedAt, finishedAt, progress, config: other } of rows) {
    const theirs = other as TrainingConfig;
    if (attempts !== 1 || !startedAt || !finishedAt || !progress || theirs.from_checkpoint !== null) continue;
    if (idOf(theirs) !== idOf(config) || (theirs.lora === null) !== (config.lora === null)) continue;
    const names = ["tokens_sampled", "tokens_scored", "tokens_trained"];
    const tokens = names.reduce((sum, name) => sum + Number(progress[name] ?? 0), 0);
    const seconds = (finishedAt.getTime() - startedAt.getTime()) / 1000;
    if (tokens > 0 && seconds > 0) return { tokens_per_second: tokens / seconds, basis: "measured", source: id };
  }
  return undefined;
}

function assumed(threads: number, parameters: number): Estimate["rate"] {
  return {
    tokens_per_second: (threads * ASSUMED_FLOPS) / (FLOP_PER_PARAMETER * parameters),
    basis: "assumed",
    source: `${threads} threads of ${ASSUMED_FLOPS / 1e9} GFLOP/s, ${FLOP_PER_PARAMETER} FLOP per parameter and token`,
  };
}

/** r · (in + out) of every matrix that is updated. */
function loraParameters(model: ModelConfig, { r, target_modules }: NonNullable<TrainingConfig["lora"]>): number {
  const { hiddenSize, intermediateSize, heads, kvHeads, headDim, layers } = model;
  const width = (module: string): number => {
    if (module === "q_proj" || module === "o_proj") return hiddenSize + heads * headDim;
    if (module === "k_proj" || module === "v_proj") return hiddenSize + kvHeads * headDim;
    return hiddenSize + intermediateSize;
  };
  return layers * r * target_modules.reduce((sum, module) => sum + width(module), 0);
}
