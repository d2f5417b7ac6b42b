/** What an evaluation is ordered with, and what its routes answer. */
import { z } from "@hono/zod-openapi";
import { ANSWER_TYPES } from "../../evaluate/answers.ts";
import { DEFAULT_MAX_TOKENS, DEFAULT_TEMPERATURE, MAX_EVALUATED_ROWS, MAX_SAMPLES } from "../../evaluate/config.ts";
import { MAX_LIST_LIMIT } from "../../http/list.ts";
import { errorSchema, jsonBody, metadataSchema, modelNameSchema } from "../../http/schemas.ts";
import { jobFields } from "../jobs/schemas.ts";
import { MIN_TEMPERATURE } from "../openai/limits.ts";

const MAX_SEED = Number.MAX_SAFE_INTEGER;
const MAX_TOKENS = 1_000_000;
const seed = z.int().min(0).max(MAX_SEED);
const share = z.number().min(0).max(1);

const toleranceSchema = z
  .number()
  .min(0)
  .max(1)
  .default(0)
  .openapi({ description: "Relative. 0: equal, but for the rounding of irrational numbers." });

const answerOptionsSchema = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("exact") }),
  z.strictObject({ type: z.literal("boxed") }),
  z.strictObject({ type: z.literal("choice") }),
  z.strictObject({ type: z.literal("last_number"), tolerance: toleranceSchema }),
  z.strictObject({ type: z.literal("math"), tolerance: toleranceSchema }),
  z.strictObject({
    type: z.literal("countdown"),
    use_all: z.boolean().default(false).openapi({ description: "Every number must be used." }),
  }),
]);

/** Also of jobs that evaluate what they have trained. */
export const answerSchema = z
  .union([z.enum(ANSWER_TYPES), answerOptionsSchema])
  .transform((given) => (typeof given === "string" ? answerOptionsSchema.parse({ type: given }) : given))
  .openapi("Answer", {
    description: "How answers are checked: a name, or an object with its options (docs/evaluations.md).",
    example: "math",
  });

export const heldOutSchema = z
  .strictObject({
    fraction: z.number().gt(0).lt(1),
    seed: seed.default(0),
    part: z.enum(["held_out", "train"]).default("held_out"),
  })
  .openapi("HeldOut", {
    description:
      "One side of a seeded split by question: the same questions for the same fraction and seed, in any dataset.",
  });

export const createEvaluationSchema = z
  .strictObject({
    student: modelNameSchema,
    dataset: z.string().min(1).max(160).openapi({ example: "ds_7d1m" }),
    answer: answerSchema,
    held_out: heldOutSchema.optional(),
    limit: z.int().min(1).max(MAX_EVALUATED_ROWS).optional().openapi({ description: "The first so many rows." }),
    max_tokens: z
      .int()
      .min(1)
      .max(MAX_TOKENS)
      .optional()
      .openapi({
        description: `Default: ${DEFAULT_MAX_TOKENS}, or what the student's context has room for.`,
      }),
    temperature: z
      .number()
      .min(0)
      .max(100)
      .refine((t) => t === 0 || t >= MIN_TEMPERATURE, `must be 0 (greedy) or at least ${MIN_TEMPERATURE}`)
      .optional()
      .openapi({ description: `Default: 0 (greedy), with several samples ${DEFAULT_TEMPERATURE}.` }),
    top_p: z.number().gt(0).max(1).default(1),
    samples: z.int().min(1).max(MAX_SAMPLES).default(1).openapi({ description: "Answers per question." }),
    seed: seed.optional().openapi({ description: "Random when absent, and echoed." }),
    metadata: metadataSchema.default({}),
  })
  .openapi("CreateEvaluation", {
    example: { student: "smollm2", dataset: "ds_7d1m", answer: "math", max_tokens: 1024 },
  });
export type CreateEvaluation = z.output<typeof createEvaluationSchema>;
export const createEvaluationBody = jsonBody(createEvaluationSchema);

const intervalSchema = z.object({
  low: share,
  high: share,
  level: z.number(),
  method: z.enum(["wilson", "wilson_effective"]),
});

export const evaluationSummarySchema = z
  .object({
    accuracy: share.nullable().openapi({ description: "Mean over rows of the mean over samples (pass@1)." }),
    interval: intervalSchema.nullable(),
    pass_at_k: z.record(z.string(), share).openapi({ description: "Unbiased, for every k up to `samples`." }),
    answered: share.openapi({ description: "Share of samples from which an answer could be read." }),
    in_format: share.openapi({ description: "… that wrote the tags of the student's format." }),
    truncated: share.openapi({ description: "… that the limit of tokens cut off." }),
    mean_completion_tokens: z.number(),
    counts: z.object({
      rows: z.int(),
      samples: z.int(),
      correct: z.int(),
      errors: z
        .record(z.string(), z.int())
        .openapi({ description: "Rows that were not asked, by code; they count as wrong." }),
      completion_tokens: z.int(),
    }),
  })
  .openapi("EvaluationResult");

export const evaluationSchema = z
  .object({
    id: z.string().openapi({ example: "eval_7d1m…" }),
    object: z.literal("evaluation"),
    ...jobFields,
    student: z.string().openapi({ description: "With its version.", example: "smollm2@1" }),
    dataset: z.string(),
    progress: z.object({
      step: z.int().openapi({ description: "Rows that are finished." }),
      total_steps: z.int().nullable(),
      percent: z.number(),
      eta_seconds: z.number().nullable(),
      tokens_per_second: z.number().nullable(),
    }),
    result: evaluationSummarySchema.optional(),
  })
  .openapi("Evaluation");
export type Evaluation = z.infer<typeof evaluationSchema>;

export const listEvaluatedRowsQuery = z.strictObject({
  after: z.coerce.number().int().min(0).optional().openapi({ description: "Number of the last row already seen." }),
  limit: z.coerce.number().int().min(1).max(MAX_LIST_LIMIT).default(20),
  correct: z
    .stringbool()
    .optional()
    .openapi({ description: "true: rows all of whose samples are right; false: the others." }),
});

export const evaluatedRowSchema = z
  .object({
    object: z.literal("evaluation.row"),
    row: z.int().openapi({ description: "Number of the row in its dataset." }),
    id: z.string().optional(),
    question: z.string().nullable().openapi({ description: "null: the dataset is gone." }),
    solution: z.string().nullable(),
    samples: z.array(
      z.object({
        correct: z.boolean(),
        extracted: z.string().nullable().openapi({ description: "What was read out of the answer." }),
        answer_found: z.boolean().openapi({ description: "false: no tags, so the whole completion is the answer." }),
        completion: z.string(),
        tokens: z.int(),
        truncated: z.boolean(),
      }),
    ),
    error: errorSchema.shape.error.pick({ code: true, message: true }).optional(),
  })
  .openapi("EvaluatedRow");
export type EvaluatedRowResource = z.infer<typeof evaluatedRowSchema>;

export const evaluatedRowListSchema = z
  .object({
    object: z.literal("list"),
    data: z.array(evaluatedRowSchema),
    first_id: z.string().nullable(),
    last_id: z.string().nullable(),
    has_more: z.boolean(),
  })
  .openapi("EvaluatedRowList");
