/**
 * What a training job does, every default filled in. Hyperparameters bear TRL's names, as callers give them; the `paper` preset
 * holds the figures of arXiv 2506.08388 (appendix) and its reference code, `small` is for a machine without a GPU.
 */
import type { Precision } from "../engine/engine.ts";
import type { Coefficients } from "../rlt/reward.ts";
import type { ScheduleName } from "./schedule.ts";

export interface Hyperparameters {
  learning_rate: number;
  lr_scheduler_type: ScheduleName;
  warmup_ratio: number;
  /** Optimizer steps; −1: as many as `num_train_epochs` takes. */
  max_steps: number;
  num_train_epochs: number;
  /** Of an rlt step: explanations; times `gradient_accumulation_steps`, divided by `num_generations`, it is the number of questions. */
  per_device_train_batch_size: number;
  gradient_accumulation_steps: number;
  num_generations: number;
  max_prompt_length: number | null;
  max_completion_length: number;
  temperature: number;
  top_p: number;
  beta: number;
  max_grad_norm: number;
  adam_beta1: number;
  adam_beta2: number;
  adam_epsilon: number;
  weight_decay: number;
  sync_ref_model: boolean;
  ref_model_mixup_alpha: number;
  ref_model_sync_steps: number;
  save_steps: number;
  /** Checkpoints kept beside the best and the last one. */
  save_total_limit: number;
  /** 0: never. */
  eval_steps: number;
  /** Evaluations without a better result before the job ends early; 0: it does not. */
  early_stopping_patience: number;
}

export interface LoraConfig {
  r: number;
  lora_alpha: number;
  target_modules: string[];
  use_rslora: boolean;
}

export type RewardSpec =
  | { type: "student"; weight: number; coefficients: Coefficients }
  /** 1 where the explanation ends with the solution, else 0. */
  | { type: "exact"; weight: number }
  /** −1 per `max_tokens` tokens beyond the first `target_tokens`. */
  | { type: "length"; weight: number; target_tokens: number; max_tokens: number }
  | { type: "http"; weight: number; url: string; timeout_seconds: number };

export const ROLLOUT_PRECISIONS = ["fp32", "q8"] as const satisfies readonly Precision[];
export type RolloutPrecision = (typeof ROLLOUT_PRECISIONS)[number];

export interface EvalConfig {
  /** Whose first `rows` rows are looked at; null: rows of the training dataset, which are not trained on. */
  dataset: string | null;
  /** Share of the training dataset's rows; 0 with a dataset of its own. */
  held_out: number;
  rows: number;
  /** Which checkpoint becomes the next version of the model. */
  publish: "last" | "best";
}

export interface TrainingConfig {
  method: "sft" | "rlt";
  /** What sft makes of the model. */
  role: "teacher" | "student";
  /** Registered model with its version: `id@3`. */
  model: string;
  student: string | null;
  dataset: string;
  hyperparameters: Hyperparameters;
  /** Null: every parameter. */
  lora: LoraConfig | null;
  /** SFT of the teacher before rlt begins. */
  warmup: Hyperparameters | null;
  rewards: RewardSpec[];
  /** Of rlt: what explanations are drawn in. Gradients are of single precision; what the two differ by is weighed. */
  rollout_precision: RolloutPrecision;
  eval: EvalConfig | null;
  budget: { tokens: number | null; seconds: number | null };
  seed: number;
  suffix: string | null;
  /** A checkpoint of another job from whose weights, optimizer and step this one goes on (`fork`). */
  from_checkpoint: string | null;
}

export const TARGET_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"] as const;

/** A usual size: 1 to 2 % of a small model's parameters. */
export const LORA_DEFAULTS = { r: 16, lora_alpha: 32, use_rslora: false } as const;

const COMMON = {
  gradient_accumulation_steps: 1,
  num_generations: 1,
  max_prompt_length: null,
  temperature: 0.7,
  top_p: 1,
  beta: 0,
  max_grad_norm: 1,
  adam_beta1: 0.9,
  adam_epsilon: 1e-8,
  sync_ref_model: false,
  ref_model_mixup_alpha: 0.9,
  ref_model_sync_steps: 32,
  save_steps: 50,
  save_total_limit: 3,
  eval_steps: 0,
  early_stopping_patience: 0,
} as const;

/** Learning rates of LoRA are not those of full fine-tuning: 1e-6 moves nothing (method.md). */
const LORA_RATE = { sft: 2e-4, rlt: 2e-5 } as const;

export function sftDefaults(role: "teacher" | "student", lora: boolean): Hyperparameters {
  const teacher = role === "teacher";
  return {
    ...COMMON,
    learning_rate: lora ? LORA_RATE.sft : 1e-5,
    lr_scheduler_type: "cosine",
    warmup_ratio: teacher ? 0.05 : 0.1,
    max_steps: -1,
    num_train_epochs: teacher ? 10 : 3,
    per_device_train_batch_size: teacher ? 16 : 96,
    max_completion_length: 16_384,
    adam_beta2: 0.95,
    weight_decay: 1e-4,
  };
}

/** `paper`: 16 questions of 64 explanations a step, 125 steps; `small`: 4 of 8, 60 steps. */
export function rltDefaults(preset: "paper" | "small", lora: boolean): Hyperparameters {
  const paper = preset === "paper";
  return {
    ...COMMON,
    learning_rate: lora ? LORA_RATE.rlt : 1e-6,
    lr_scheduler_type: "constant",
    warmup_ratio: 0,
    max_steps: paper ? 125 : 60,
    num_train_epochs: 1,
    per_device_train_batch_size: paper ? 64 : 8,
    gradient_accumulation_steps: paper ? 16 : 4,
    num_generations: paper ? 64 : 8,
    max_completion_length: paper ? 4096 : 1024,
    beta: 0.04,
    adam_beta2: 0.999,
    weight_decay: 0,
    // Every 32 steps, as the reference code does; with LoRA the base stays the reference (method.md).
    sync_ref_model: paper && !lora,
    save_steps: paper ? 25 : 20,
  };
}

/** Steps of a run over `rows` rows. */
export function totalSteps({ max_steps, num_train_epochs, ...h }: Hyperparameters, rows: number): number {
  if (max_steps > 0) return max_steps;
  return Math.max(1, Math.ceil((num_train_epochs * rows) / rowsPerStep(h)));
}

/** Dataset rows that one step takes: examples of sft, questions of rlt. */
export function rowsPerStep(
  h: Pick<Hyperparameters, "per_device_train_batch_size" | "gradient_accumulation_steps" | "num_generations">,
): number {
  return (h.per_device_train_batch_size * h.gradient_accumulation_steps) / h.num_generations;
}
