/** What a training job is ordered with. What a schema cannot say is checked in src/train/resolve-config.ts. */
import { z } from "@hono/zod-openapi";
import { boundedArray, metadataSchema, modelNameSchema, slugSchema } from "../../../http/schemas.ts";
import { ROLLOUT_PRECISIONS, TARGET_MODULES } from "../../../train/config.ts";
import type { TrainingRequest } from "../../../train/request.ts";
import { SCHEDULES } from "../../../train/schedule.ts";
import { MIN_TEMPERATURE } from "../../openai/limits.ts";

/** A thousand billion: nobody's steps, tokens or seconds. */
const MANY = 1e12;
const count = (min: number, max: number = MANY) => z.int().min(min).max(max);
const share = z.number().min(0).max(1);

export const hyperparametersSchema = z
  .strictObject({
    learning_rate: z.number().gt(0).max(1),
    lr_scheduler_type: z.enum(SCHEDULES),
    warmup_ratio: share,
    max_steps: count(-1)
      .refine((steps) => steps !== 0, "must be at least 1, or -1 for as many as num_train_epochs takes")
      .openapi({ description: "-1: as many as num_train_epochs takes." }),
    num_train_epochs: z.number().gt(0).max(1e6),
    per_device_train_batch_size: count(1, 1e6),
    gradient_accumulation_steps: count(1, 1e6),
    num_generations: count(1, 1024).openapi({
      description:
        "Explanations per question. Questions per step = per_device_train_batch_size × gradient_accumulation_steps / num_generations.",
    }),
    max_prompt_length: count(1).nullable().openapi({ description: "A longer prompt is refused, not cut." }),
    max_completion_length: count(1),
    temperature: z.number().min(MIN_TEMPERATURE).max(100),
    top_p: z.number().gt(0).max(1),
    beta: z.number().min(0).max(1e6).openapi({ description: "Of the KL term against the model as it began; 0: none." }),
    max_grad_norm: z.number().min(0).max(1e6).openapi({ description: "0: no clipping." }),
    adam_beta1: z.number().min(0).lt(1),
    adam_beta2: z.number().min(0).lt(1),
    adam_epsilon: z.number().gt(0).max(1),
    weight_decay: z.number().min(0).max(1e3),
    sync_ref_model: z.boolean().openapi({
      description:
        "Pull the reference model to the policy every `ref_model_sync_steps`: ref ← α policy + (1 − α) ref. With lora the ranks of both stand beside each other.",
    }),
    ref_model_mixup_alpha: share,
    ref_model_sync_steps: count(1),
    save_steps: count(0).openapi({ description: "0: at the end only." }),
    save_total_limit: count(1, 1000).openapi({ description: "Checkpoints kept beside the best one." }),
    eval_steps: count(0),
    early_stopping_patience: count(0, 1e6),
    n_epochs: z.union([z.literal("auto"), z.number().gt(0).max(1e6)]).openapi({ description: "num_train_epochs" }),
    batch_size: z.union([z.literal("auto"), count(1, 1e6)]).openapi({ description: "per_device_train_batch_size" }),
    seed: count(0, Number.MAX_SAFE_INTEGER),
  })
  .partial()
  .openapi("Hyperparameters", {
    description: "TRL's names. Defaults: those of the method and preset (docs/training-jobs.md).",
  });

const modulesSchema = z.union([
  z.literal("all-linear"),
  boundedArray(z.enum(TARGET_MODULES), { min: 1, max: TARGET_MODULES.length }),
]);

export const loraSchema = z
  .strictObject({
    r: count(1, 4096),
    lora_alpha: z.number().gt(0).max(1e6),
    target_modules: modulesSchema,
    lora_dropout: share.openapi({ description: "Only 0." }),
    use_rslora: z.boolean(),
    rank: count(1, 4096).openapi({ description: "r" }),
    alpha: z.number().gt(0).max(1e6).openapi({ description: "lora_alpha" }),
    targets: modulesSchema.openapi({ description: "target_modules" }),
  })
  .partial()
  .openapi("LoraConfig", { description: "PEFT's names." });

const weight = z.number().min(-1e6).max(1e6).default(1);
const factor = z.number().min(-1e6).max(1e6).optional();

export const coefficientsSchema = z
  .strictObject({
    solution: z.strictObject({ mean: factor, min: factor }).optional(),
    kl: z.strictObject({ mean: factor, max: factor }).optional(),
  })
  .optional();

const rewardSchema = z
  .discriminatedUnion("type", [
    z.strictObject({
      type: z.literal("student"),
      weight,
      coefficients: coefficientsSchema,
    }),
    z.strictObject({ type: z.literal("exact"), weight }),
    z.strictObject({ type: z.literal("length"), weight, target_tokens: count(1, 1e6), max_tokens: count(2, 1e6) }),
    z.strictObject({
      type: z.literal("http"),
      weight,
      url: z.string().min(1).max(2048),
      timeout_seconds: z.number().gt(0).max(600).default(30),
    }),
  ])
  .openapi("TrainingReward", {
    description:
      "student: the method's own. exact: 1 where the explanation ends with the solution. length: −1 at max_tokens, 0 up to " +
      "target_tokens. http: a server of yours answers {question, solution, completion} with {reward}.",
  });

export const rewardsSchema = boundedArray(rewardSchema, { min: 1, max: 8 });
export const budgetSchema = z
  .strictObject({ tokens: count(1).optional(), seconds: z.number().gt(0).max(MANY).optional() })
  .openapi("TrainingBudget", { description: "Spent, the job ends with its last checkpoint and a job.warning." });

export const suffixSchema = slugSchema.max(40).openapi({
  description: "The result is registered as <id>-<suffix>; without one it is the next version of its own model.",
});

const seedSchema = count(0, Number.MAX_SAFE_INTEGER).openapi({ description: "Wins over hyperparameters.seed." });

const fields = {
  method: z.enum(["sft", "rlt"]),
  role: z.enum(["teacher", "student"]).optional().openapi({ description: "Of sft: what it makes of the model." }),
  model: modelNameSchema.optional(),
  teacher: modelNameSchema.optional(),
  student: modelNameSchema.optional().openapi({ description: "Of rlt: who judges the explanations." }),
  dataset: z.string().min(1).max(160).openapi({ example: "ds_7d1m" }),
  preset: z.enum(["small", "paper"]).optional().openapi({
    description: "Of rlt. small (default): 4 questions × 8, 60 steps; paper: 16 × 64, 125 steps.",
  }),
  hyperparameters: hyperparametersSchema.optional(),
  lora: loraSchema.optional(),
  full: z.boolean().optional().openapi({ description: "true: every parameter learns. Default: lora." }),
  warmup: hyperparametersSchema.optional().openapi({
    description: "Of rlt: sft of the teacher on the rows' reasoning_trace before it; {} takes the paper's figures.",
  }),
  rewards: rewardsSchema.optional(),
  rollout_precision: z
    .enum(ROLLOUT_PRECISIONS)
    .optional()
    .openapi({
      description:
        "Of rlt, what explanations are drawn in (default fp32, as gradients are). q8 draws faster on a CPU; tokens are then " +
        "weighed by exp(lp_train − lp_sample), at most 2, and `sampling/…` tells how far the two are apart.",
    }),
  eval: z
    .strictObject({
      dataset: z
        .string()
        .min(1)
        .max(160)
        .optional()
        .openapi({ description: "Rows to look at instead of rows of the training dataset.", example: "ds_3f9k" }),
      held_out: z.number().gt(0).lt(1).optional().openapi({ description: "Share of rows that are not trained on." }),
      rows: count(1, 10_000).optional().openapi({ description: "Of these, how many are looked at (default 64)." }),
      publish: z.enum(["last", "best"]).optional().openapi({
        description: "Which checkpoint becomes the next version. Default: last; best with early_stopping_patience.",
      }),
    })
    .optional(),
  budget: budgetSchema.optional(),
  seed: seedSchema.optional(),
  suffix: suffixSchema.optional(),
};

export const trainingRequestSchema = z.strictObject(fields);

export const createTrainingJobSchema = z
  .strictObject({ ...fields, metadata: metadataSchema.default({}) })
  .openapi("CreateTrainingJob", {
    example: {
      method: "rlt",
      teacher: "smollm2",
      student: "smollm2",
      dataset: "ds_7d1m",
      hyperparameters: { max_steps: 60, num_generations: 8 },
    },
  });

export type CreateTrainingJob = z.output<typeof createTrainingJobSchema>;

export const forkSchema = z
  .strictObject({
    checkpoint: z.string().min(1).max(80).optional().openapi({ description: "Of this job; default: its last one." }),
    hyperparameters: hyperparametersSchema
      .optional()
      .openapi({ description: "What is to be otherwise than in this job." }),
    budget: budgetSchema.optional(),
    suffix: suffixSchema.optional(),
    metadata: metadataSchema.default({}),
  })
  .openapi("ForkTrainingJob");

export type ForkTrainingJob = z.output<typeof forkSchema>;

/** The parsed body is what the resolver takes. */
export const asRequest = ({ metadata: _, ...request }: CreateTrainingJob): TrainingRequest => request;
