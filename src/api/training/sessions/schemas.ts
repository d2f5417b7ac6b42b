import { z } from "@hono/zod-openapi";
import { LOSSES } from "../../../graph/losses.ts";
import { listSchema } from "../../../http/list.ts";
import { boundedArray, metadataSchema, timestampSchema, tokenIds } from "../../../http/schemas.ts";
import { DEFAULT_TEMPERATURE } from "../../../rlt/reward.ts";
import { MAX_SAMPLES } from "../../explanations/schemas.ts";
import { MIN_TEMPERATURE } from "../../openai/limits.ts";
import { textSchema } from "../../texts.ts";

/** The paper's step: 16 questions of 64 explanations each. */
export const MAX_SEQUENCES = 1024;
/** Longer than any context; a model's own limit is checked where the model is known. */
const MAX_TOKENS = 1_000_000;
const MAX_SEED = Number.MAX_SAFE_INTEGER;
/** Ids reported per position, asked for or most likely. */
const MAX_IDS = 256;
/** Larger numbers overflow single precision as soon as they are multiplied. */
const MAX_NUMBER = 1e6;
/** That of the widest adapters there are. */
const MAX_RANK = 8192;
const MAX_STOP_IDS = 64;

export const sessionIdSchema = z
  .string()
  .regex(/^sess_[0-9a-z]+$/, "is not the id of a training session (sess_…)")
  .openapi({ example: "sess_7d1m3k" });

const targetSchema = z.string().min(1).max(64);
const targetsSchema = z.union([boundedArray(targetSchema, { min: 1, max: 64 }), z.literal("all-linear")]);
const rankSchema = z.int().max(MAX_RANK);
const alphaSchema = z.number().gt(0).max(MAX_NUMBER);

export const loraSchema = z
  .strictObject({
    rank: rankSchema.optional().openapi({ description: "Default 16.", minimum: 1 }),
    r: rankSchema.optional().openapi({ description: "PEFT's name for `rank`." }),
    alpha: alphaSchema
      .optional()
      .openapi({ description: "The update is multiplied by alpha / rank. Default 2 × rank." }),
    lora_alpha: alphaSchema.optional().openapi({ description: "PEFT's name for `alpha`." }),
    targets: targetsSchema.optional().openapi({
      description:
        "Linear maps that learn: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj. Default: all of them.",
    }),
    target_modules: targetsSchema.optional().openapi({ description: "PEFT's name for `targets`." }),
    use_rslora: z.boolean().optional().openapi({ description: "alpha / √rank instead of alpha / rank." }),
    lora_dropout: z.number().optional().openapi({ description: "0 only: gradients have no dropout." }),
    seed: z.int().min(0).max(MAX_SEED).optional().openapi({ description: "Random when absent, and echoed." }),
  })
  .openapi("LoraOptions");

export type LoraBody = z.output<typeof loraSchema>;

export const createSessionSchema = z
  .strictObject({
    model: z
      .string()
      .min(1)
      .max(4096)
      .openapi({
        description:
          "A registered teacher or student (`id`, `id@3`), or a source as in a registration: a path under a models directory, " +
          "a GGUF file, `hf:org/name[@revision]`. Remote models cannot be trained here.",
        example: "smollm2",
      }),
    adapter: z.string().min(1).max(4096).optional().openapi({
      description: "Training goes on with it: a PEFT directory under a models directory, or a checkpoint (`ckpt_…`).",
    }),
    state: z.boolean().default(true).openapi({
      description:
        "Of a checkpoint named as `adapter`, `model` or `model@ckpt_…`: take over the optimizer's state and step, where they were saved.",
    }),
    lora: loraSchema.optional().openapi({ description: "A new adapter. Beside `adapter`: what that one must be." }),
    full: z.boolean().default(false).openapi({ description: "Every parameter learns, no adapter." }),
    metadata: metadataSchema.default({}),
  })
  .openapi("CreateTrainingSession", { example: { model: "smollm2", lora: { rank: 16, alpha: 32, seed: 1 } } });

export type CreateSession = z.output<typeof createSessionSchema>;

export const sessionSchema = z
  .object({
    id: sessionIdSchema,
    object: z.literal("training.session"),
    created_at: timestampSchema,
    expires_at: timestampSchema.openapi({ description: "When it ends unless it is called; unix seconds." }),
    model: z.string(),
    version: z.int().nullable().openapi({ description: "Of a registered model; null for a source." }),
    adapter: z.string().nullable().openapi({ description: "The one that training began with." }),
    full: z.boolean(),
    lora: z
      .object({
        rank: z.int(),
        alpha: z.number(),
        targets: z.array(z.string()),
        use_rslora: z.boolean(),
        seed: z.int(),
      })
      .nullable()
      .openapi({ description: "Of a new adapter, with every default filled in." }),
    trainable_parameters: z.int(),
    step: z.int().openapi({ description: "Optimizer steps so far." }),
    context_length: z.int(),
    vocab_size: z.int(),
    weights_hash: z.string().openapi({ description: "Of the base." }),
    tokenizer_hash: z.string(),
    metadata: z.record(z.string(), z.string()),
  })
  .openapi("TrainingSession");

export type SessionResource = z.infer<typeof sessionSchema>;
export const sessionListSchema = listSchema("TrainingSessionList", sessionSchema);

/** Numbers beside tokens: one fault at most, whatever the length. `nullFirst`: nothing predicts the first token. */
function numbers({ min = -MAX_NUMBER, nullFirst = false }: { min?: number; nullFirst?: boolean }) {
  return z
    .custom<(number | null)[]>()
    .superRefine((values, ctx) => {
      const refuse = (message: string, path: number[] = []): void => ctx.addIssue({ code: "custom", message, path });
      if (!Array.isArray(values)) {
        return ctx.addIssue({ code: "invalid_type", expected: "array", input: values, continue: false });
      }
      if (values.length > MAX_TOKENS) return refuse(`at most ${MAX_TOKENS} numbers, got ${values.length}`);
      if (nullFirst && values[0] !== null) return refuse("must be null: nothing predicts the first token", [0]);
      const first = nullFirst ? 1 : 0;
      const bad = values.findIndex(
        (value, i) => i >= first && !(typeof value === "number" && value >= min && value <= MAX_NUMBER),
      );
      if (bad >= 0) refuse(`expected a number from ${min} to ${MAX_NUMBER}`, [bad]);
    })
    .openapi({ type: "array", items: nullFirst ? { type: ["number", "null"] } : { type: "number", minimum: min } });
}

const datumSchema = z
  .strictObject({
    tokens: tokenIds({ min: 2, max: MAX_TOKENS }),
    weights: numbers({ min: 0 }).optional().openapi({
      description: "What each token counts; the first is 0, for nothing predicts it. Default: 1 for all others.",
    }),
    advantages: z
      .union([z.number().min(-MAX_NUMBER).max(MAX_NUMBER), numbers({})])
      .optional()
      .openapi({ description: "One number for the sequence, or one per token. All losses but cross_entropy need it." }),
    ref_logprobs: numbers({ nullFirst: true }).optional().openapi({
      description: "Of the reference model at the loss's temperature, null first; needed where beta > 0.",
    }),
    old_logprobs: numbers({ nullFirst: true }).optional().openapi({
      description: "Of the policy that sampled, null first; importance_sampling and ppo need it.",
    }),
  })
  .openapi("TrainingDatum");

export type Datum = z.output<typeof datumSchema>;

const lossConfigSchema = z
  .strictObject({
    temperature: z
      .number()
      .min(0.01)
      .max(100)
      .optional()
      .openapi({
        description: `Logits are divided by it. Default 1 for cross_entropy, ${DEFAULT_TEMPERATURE} otherwise.`,
      }),
    beta: z.number().min(0).max(MAX_NUMBER).optional().openapi({
      description:
        "Of the KL term against ref_logprobs. Default 0.04; for importance_sampling and ppo 0 where no ref_logprobs are given.",
    }),
    clip_low: z
      .number()
      .min(0)
      .max(1)
      .default(0.2)
      .openapi({ description: "ppo: the ratio counts from 1 − clip_low …" }),
    clip_high: z.number().min(0).max(MAX_NUMBER).default(0.2).openapi({ description: "… to 1 + clip_high." }),
  })
  .openapi("LossOptions");

export const lossSchema = z
  .strictObject({
    data: boundedArray(datumSchema, { min: 1, max: MAX_SEQUENCES }),
    loss: z.enum(LOSSES).openapi({
      description:
        "cross_entropy: −Σ w·lp / Σ w over all data of the call. The others: the mean over the tokens with weight > 0 of each " +
        "sequence, then over the sequences. Fields that a loss does not use are not read.",
    }),
    config: lossConfigSchema.default({ clip_low: 0.2, clip_high: 0.2 }),
  })
  .openapi("TrainingLoss", {
    example: { data: [{ tokens: [1, 2, 3, 4], weights: [0, 0, 1, 1] }], loss: "cross_entropy" },
  });

export type LossBody = z.output<typeof lossSchema>;

const logprobsSchema = z.array(z.array(z.number().nullable())).openapi({
  description: "Per sequence one number per token, at the temperature stated; null for the first.",
});

export const lossResultSchema = z
  .object({
    loss: z.number(),
    logprobs: logprobsSchema,
    metrics: z.record(z.string(), z.number()).openapi({
      description:
        "sequences, tokens, loss_tokens (weight > 0), weight (their sum), logprob_mean; with ref_logprobs kl (k3); with " +
        "old_logprobs ratio_mean, for ppo clip_fraction. Means run over the tokens with weight > 0.",
    }),
    config: z.object({ temperature: z.number(), beta: z.number(), clip_low: z.number(), clip_high: z.number() }),
    step: z.int().openapi({ description: "Optimizer steps behind the weights that were used." }),
  })
  .openapi("TrainingLossResult");

export type LossResult = z.infer<typeof lossResultSchema>;

const betaSchema = z.number().min(0).lt(1);

export const optimStepSchema = z
  .strictObject({
    learning_rate: z.number().min(0).max(1000),
    betas: z.tuple([betaSchema, betaSchema]).default([0.9, 0.999]),
    eps: z.number().gt(0).max(1).default(1e-8),
    weight_decay: z.number().min(0).max(1000).default(0),
    clip: z.number().gt(0).nullable().default(null).openapi({
      description: "Largest norm of all gradients together; null: as they are.",
    }),
  })
  .openapi("OptimStep", { example: { learning_rate: 0.0001, clip: 1 } });

export type OptimStepBody = z.output<typeof optimStepSchema>;

export const optimStepResultSchema = z
  .object({
    step: z.int(),
    grad_norm: z.number().openapi({ description: "Before clipping." }),
  })
  .openapi("OptimStepResult");

export const sessionSampleSchema = z
  .strictObject({
    prompt: z
      .union([textSchema, tokenIds({ min: 1, max: MAX_TOKENS })])
      .openapi({ description: "Token ids, or text in which special tokens are parsed." }),
    n: z.int().min(1).max(MAX_SAMPLES).default(1),
    temperature: z
      .number()
      .min(0)
      .max(100)
      .refine((t) => t === 0 || t >= MIN_TEMPERATURE, `must be 0 (greedy) or at least ${MIN_TEMPERATURE}`)
      .default(DEFAULT_TEMPERATURE),
    top_p: z.number().gt(0).max(1).default(1),
    top_k: z.int().min(0).max(1_000_000).default(0),
    max_tokens: z.int().min(1).max(MAX_TOKENS).optional().openapi({
      description: "Default: 1024 or what the context leaves, whichever is smaller.",
    }),
    seed: z.int().min(0).max(MAX_SEED).optional().openapi({ description: "Random when absent, and echoed." }),
    stop: tokenIds({ max: MAX_STOP_IDS }).optional().openapi({
      description:
        "Ids that end a sequence (they are its last token). Default: the model's end-of-turn ids; [] for none.",
    }),
  })
  .openapi("TrainingSample", { example: { prompt: [1, 2, 3], n: 4, max_tokens: 32 } });

export type SampleBody = z.output<typeof sessionSampleSchema>;

export const sessionSampleResultSchema = z
  .object({
    prompt_tokens: z.array(z.int()).openapi({ description: "The prompt's ids." }),
    choices: z.array(
      z.object({
        index: z.int(),
        tokens: z.array(z.int()),
        text: z.string().openapi({ description: "Of the tokens, without special ones." }),
        logprobs: z
          .array(z.number())
          .openapi({ description: "One per token, at the temperature of `sampling` (1 if greedy)." }),
        finish_reason: z.enum(["stop", "length"]),
      }),
    ),
    sampling: z.object({
      temperature: z.number(),
      top_p: z.number(),
      top_k: z.int(),
      max_tokens: z.int(),
      seed: z.int(),
      stop: z.array(z.int()),
      logprobs_temperature: z.number(),
    }),
    usage: z.object({ prompt_tokens: z.int(), completion_tokens: z.int(), cached_tokens: z.int() }),
  })
  .openapi("TrainingSampleResult");

export type SampleResult = z.infer<typeof sessionSampleResultSchema>;

const placesSchema = boundedArray(z.union([tokenIds({ max: MAX_IDS }), z.null()]), { max: MAX_TOKENS });

export const sessionLogprobsSchema = z
  .strictObject({
    data: boundedArray(z.strictObject({ tokens: tokenIds({ min: 1, max: MAX_TOKENS }) }), {
      min: 1,
      max: MAX_SEQUENCES,
    }),
    temperature: z.number().min(0.01).max(100).default(1),
    top_k: z.int().min(0).max(MAX_IDS).default(0).openapi({ description: "Also the k most likely ids per token." }),
    at: boundedArray(placesSchema, { max: MAX_SEQUENCES }).optional().openapi({
      description: "Per sequence and token: ids whose log-probs are wanted in its place; null (or []) for none.",
    }),
    entropy: z.boolean().default(false),
  })
  .openapi("TrainingLogprobs", { example: { data: [{ tokens: [1, 2, 3] }], temperature: 0.7, entropy: true } });

export type LogprobsBody = z.output<typeof sessionLogprobsSchema>;

export const sessionLogprobsResultSchema = z
  .object({
    logprobs: logprobsSchema,
    entropy: z.array(z.array(z.number().nullable())).optional().openapi({
      description:
        "Nats; entropy[i] is that of the distribution after token i. null only after the last token of a full context.",
    }),
    top: z
      .array(z.array(z.array(z.object({ id: z.int(), logprob: z.number() })).nullable()))
      .optional()
      .openapi({ description: "With top_k: the most likely ids in the place of each token, null first." }),
    at: z
      .array(z.array(z.array(z.number()).nullable()))
      .optional()
      .openapi({ description: "Log-probs of the ids in `at`, in their order, null first." }),
    temperature: z.number(),
    step: z.int(),
  })
  .openapi("TrainingLogprobsResult");

export type LogprobsResultBody = z.infer<typeof sessionLogprobsResultSchema>;

export const saveSchema = z
  .strictObject({
    state: z
      .boolean()
      .default(false)
      .openapi({ description: "Also what the optimizer goes on from: twice as much again as the weights that learn." }),
  })
  .openapi("SaveTrainingSession");

export const checkpointSchema = z
  .object({
    id: z.string().openapi({ example: "ckpt_7d1m3k" }),
    object: z.literal("checkpoint"),
    created_at: timestampSchema,
    kind: z.enum(["adapter", "full"]),
    step: z.int(),
    session: sessionIdSchema,
  })
  .openapi("SavedCheckpoint");

export type CheckpointResource = z.infer<typeof checkpointSchema>;
