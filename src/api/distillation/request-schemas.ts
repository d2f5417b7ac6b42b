/** What a distillation job is ordered with. */
import { z } from "@hono/zod-openapi";
import { MIN_NEAR_THRESHOLD } from "../../datasets/minhash.ts";
import { DEFAULT_LEAK_SHARE, DEFAULT_NEAR, DEFAULT_SAMPLING, MAX_SAMPLES_PER_QUESTION } from "../../distill/config.ts";
import { OPERATORS, type Predicate } from "../../distill/predicate.ts";
import { PARTS } from "../../distill/records.ts";
import { boundedArray, metadataSchema, modelNameSchema } from "../../http/schemas.ts";
import { createEvaluationSchema } from "../evaluations/schemas.ts";
import { MIN_TEMPERATURE } from "../openai/limits.ts";
import {
  budgetSchema,
  coefficientsSchema,
  hyperparametersSchema,
  loraSchema,
  suffixSchema,
} from "../training/jobs/request-schemas.ts";

const MAX_ROWS = 1e9;
const MAX_TOKENS = 1_000_000;
const number = z.number().min(-1e12).max(1e12);

/** Of `all`, `any`, `not`: nobody writes deeper ones by hand, and each level costs a call. */
const MAX_DEPTH = 8;
const MAX_BRANCHES = 32;

const thresholdsSchema = z.strictObject(
  Object.fromEntries(
    PARTS.map((part) => [
      part,
      z.strictObject(Object.fromEntries(OPERATORS.map((operator) => [operator, number.optional()]))).optional(),
    ]),
  ),
);

function predicateSchema(depth: number): z.ZodType<Predicate> {
  if (depth === 0) return thresholdsSchema as z.ZodType<Predicate>;
  const inner = predicateSchema(depth - 1);
  const branches = boundedArray(inner, { min: 1, max: MAX_BRANCHES });
  return z.union([
    z.strictObject({ all: branches }),
    z.strictObject({ any: branches }),
    z.strictObject({ not: inner }),
    thresholdsSchema,
  ]) as z.ZodType<Predicate>;
}

export const selectSchema = z
  .union([
    z.enum(["raw", "best", "all"]),
    z.strictObject({
      min_reward: number.optional(),
      min_solution_logprob: number.optional(),
      min_uplift: number.optional(),
      max_kl_mean: number.optional(),
      max_kl_max: number.optional(),
      where: predicateSchema(MAX_DEPTH)
        .openapi("DistillationPredicate", {
          type: "object",
          description:
            'Thresholds on the parts of a score, `{"reward": {"gte": -1}, "kl.mean": {"lt": 0.5}}`, joined by `all`, `any` and ' +
            `\`not\`. Parts: ${PARTS.join(", ")}. A part that a score does not have meets no threshold.`,
        })
        .optional(),
      per_question: z.enum(["first", "best", "all"]).default("all").openapi({
        description: "Which of the explanations of a question that pass are taken.",
      }),
    }),
  ])
  .openapi({
    description:
      "raw: the first explanation of each question. best: the one with the highest reward. all: each. Default: best where " +
      "several are drawn and a student is named, else raw.",
  });

const share = z.union([z.boolean(), z.number().gt(0).max(1)]);

/** Which explanations are left out whatever they score. */
export const filterFields = {
  well_formed: z.boolean().optional().openapi({
    description:
      "Leave out explanations without their closing tag or with tags inside. Default: true, but false with raw.",
  }),
  fits_context: z
    .union([z.boolean(), z.int().min(1).max(MAX_TOKENS)])
    .optional()
    .openapi({
      description:
        "Leave out what is longer, as the student reads it, than its context (true) or so many tokens. Default: the context of " +
        "the model that finetune trains, else none.",
    }),
  dedupe: z
    .union([z.boolean(), z.number().min(MIN_NEAR_THRESHOLD).max(1)])
    .optional()
    .openapi({
      description: `Leave out near-copies of accepted explanations: likeness from which (true: ${DEFAULT_NEAR}).`,
    }),
  not_leaked: share.optional().openapi({
    description: `Leave out explanations in whose first part (true: ${DEFAULT_LEAK_SHARE} of the text) the solution stands verbatim.`,
  }),
};

const finetuneSchema = z
  .strictObject({
    model: modelNameSchema.openapi({ description: "The student to be trained, as it is before." }),
    hyperparameters: hyperparametersSchema.optional(),
    lora: loraSchema.optional(),
    full: z.boolean().optional().openapi({ description: "true: every parameter learns. Default: lora." }),
    suffix: suffixSchema.optional(),
    controls: z
      .array(z.enum(["solutions", "reasoning_trace"]))
      .max(2)
      .default([])
      .openapi({
        description:
          "The same model trained in the same way on the same questions, with the solutions alone, or with the traces that " +
          "the rows themselves brought.",
      }),
  })
  .openapi("DistillationFinetune", { description: "As a training job of the method sft on the rows that come out." });

const measurementSchema = createEvaluationSchema
  .omit({ student: true, metadata: true })
  .openapi("DistillationEvaluation", { description: "As POST /v1/evaluations, of the student before and after." });

export const createDistillationSchema = z
  .strictObject({
    teacher: modelNameSchema,
    dataset: z.string().min(1).max(160).openapi({ example: "ds_7d1m" }),
    student: modelNameSchema.optional().openapi({ description: "Who reads the explanations and thereby scores them." }),
    samples_per_question: z.int().min(1).max(MAX_SAMPLES_PER_QUESTION).default(1),
    temperature: z
      .number()
      .min(0)
      .max(100)
      .refine((t) => t === 0 || t >= MIN_TEMPERATURE, `must be 0 (greedy) or at least ${MIN_TEMPERATURE}`)
      .default(DEFAULT_SAMPLING.temperature)
      .openapi({ description: "Of sampling and of the reward; 0 is greedy, and scored at 1." }),
    top_p: z.number().gt(0).max(1).default(DEFAULT_SAMPLING.top_p),
    top_k: z.int().min(0).max(1_000_000).default(DEFAULT_SAMPLING.top_k),
    max_tokens: z.int().min(1).max(MAX_TOKENS).optional().openapi({
      description: "Of an explanation. Default: 1024 or what the context leaves, whichever is smaller.",
    }),
    coefficients: coefficientsSchema,
    select: selectSchema.optional(),
    ...filterFields,
    target_rows: z.int().min(1).max(MAX_ROWS).optional().openapi({
      description: "The job ends with exactly so many rows, or says that the questions did not suffice.",
    }),
    preview: z.int().min(1).max(10_000).optional().openapi({
      description: "Only the first so many questions, and no training: a look before it is paid for.",
    }),
    finetune: finetuneSchema.optional(),
    evaluate: measurementSchema.optional(),
    budget: budgetSchema.optional(),
    seed: z.int().min(0).max(Number.MAX_SAFE_INTEGER).optional(),
    name: z.string().min(1).max(200).optional().openapi({ description: "Of the dataset that comes out." }),
    metadata: metadataSchema.default({}),
  })
  .openapi("CreateDistillationJob", {
    example: { teacher: "smollm2", student: "smollm2", dataset: "ds_7d1m", samples_per_question: 4, select: "best" },
  });
export type CreateDistillation = z.output<typeof createDistillationSchema>;

/** A page of rows while the job runs; each may be long. */
export const liveRowsQuery = z.strictObject({
  part: z.enum(["accepted", "rejected"]).default("accepted"),
  after: z.coerce.number().int().min(-1).default(-1).openapi({ description: "Number of the last row seen, from 0." }),
  limit: z.coerce.number().int().min(1).max(100).default(20),
});
