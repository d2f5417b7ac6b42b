/** What a caller asks of a distillation job; what is left out is filled in by resolve.ts. */
import type { GivenCoefficients, GivenHyperparameters, GivenLora } from "../train/request.ts";
import type { Predicate } from "./predicate.ts";

export interface DistillRequest {
  teacher: string;
  student?: string | undefined;
  dataset: string;
  samples_per_question: number;
  temperature: number;
  top_p: number;
  top_k: number;
  max_tokens?: number | undefined;
  select?: "raw" | "best" | "all" | GivenSelection | undefined;
  well_formed?: boolean | undefined;
  fits_context?: boolean | number | undefined;
  dedupe?: boolean | number | undefined;
  not_leaked?: boolean | number | undefined;
  target_rows?: number | undefined;
  preview?: number | undefined;
  coefficients?: GivenCoefficients | undefined;
  finetune?: GivenFinetune | undefined;
  budget?: { tokens?: number | undefined; seconds?: number | undefined } | undefined;
  seed?: number | undefined;
  name?: string | undefined;
}

export interface GivenSelection {
  min_reward?: number | undefined;
  min_solution_logprob?: number | undefined;
  min_uplift?: number | undefined;
  max_kl_mean?: number | undefined;
  max_kl_max?: number | undefined;
  where?: Predicate | undefined;
  per_question: "first" | "best" | "all";
}

export interface GivenFinetune {
  model: string;
  hyperparameters?: GivenHyperparameters | undefined;
  lora?: GivenLora | undefined;
  full?: boolean | undefined;
  suffix?: string | undefined;
  controls: ("solutions" | "reasoning_trace")[];
}
