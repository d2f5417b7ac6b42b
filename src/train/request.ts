/** A training job as callers ask for it: what is left out gets its default in `resolve-config.ts`. */
import type { Coefficients } from "../rlt/reward.ts";
import type { EvalConfig, Hyperparameters, RolloutPrecision } from "./config.ts";

/** TRL's names, and OpenAI's for two of them. */
export type GivenHyperparameters = { [Name in keyof Hyperparameters]?: Hyperparameters[Name] | undefined } & {
  /** `num_train_epochs` */
  n_epochs?: number | "auto" | undefined;
  /** `per_device_train_batch_size` */
  batch_size?: number | "auto" | undefined;
  seed?: number | undefined;
};

/** PEFT's names, and Tinker's for three of them. */
export interface GivenLora {
  r?: number | undefined;
  lora_alpha?: number | undefined;
  target_modules?: string[] | "all-linear" | undefined;
  lora_dropout?: number | undefined;
  use_rslora?: boolean | undefined;
  rank?: number | undefined;
  alpha?: number | undefined;
  targets?: string[] | "all-linear" | undefined;
}

export type GivenReward =
  | { type: "student"; weight: number; coefficients?: GivenCoefficients | undefined }
  | { type: "exact"; weight: number }
  | { type: "length"; weight: number; target_tokens: number; max_tokens: number }
  | { type: "http"; weight: number; url: string; timeout_seconds: number };

export interface GivenCoefficients {
  solution?: { [Name in keyof Coefficients["solution"]]?: number | undefined } | undefined;
  kl?: { [Name in keyof Coefficients["kl"]]?: number | undefined } | undefined;
}

export interface TrainingRequest {
  method: "sft" | "rlt";
  role?: "teacher" | "student" | undefined;
  model?: string | undefined;
  teacher?: string | undefined;
  student?: string | undefined;
  dataset: string;
  preset?: "small" | "paper" | undefined;
  hyperparameters?: GivenHyperparameters | undefined;
  lora?: GivenLora | undefined;
  full?: boolean | undefined;
  warmup?: GivenHyperparameters | undefined;
  rewards?: GivenReward[] | undefined;
  rollout_precision?: RolloutPrecision | undefined;
  eval?:
    | {
        dataset?: string | undefined;
        held_out?: number | undefined;
        rows?: number | undefined;
        publish?: EvalConfig["publish"] | undefined;
      }
    | undefined;
  budget?: { tokens?: number | undefined; seconds?: number | undefined } | undefined;
  seed?: number | undefined;
  suffix?: string | undefined;
}
