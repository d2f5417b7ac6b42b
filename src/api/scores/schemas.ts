import { z } from "@hono/zod-openapi";
import { boundedArray, errorSchema, modelNameSchema, namedVersionSchema } from "../../http/schemas.ts";
import { DEFAULT_TOP_K } from "../../rlt/kl.ts";
import { DEFAULT_COEFFICIENTS, DEFAULT_TEMPERATURE } from "../../rlt/reward.ts";
import { faultOfText, itemTextSchema } from "../texts.ts";

/** One request holds the server's attention for minutes at this size; larger sets are datasets. */
export const MAX_SCORE_ITEMS = 256;
/** The engines report at most this many ranks per position. */
const MAX_TOP_K = 256;

const coefficientSchema = z.number().min(-1000).max(1000);

export const coefficientsSchema = z
  .strictObject({
    solution: z
      .strictObject({
        mean: coefficientSchema.default(DEFAULT_COEFFICIENTS.solution.mean),
        min: coefficientSchema.default(DEFAULT_COEFFICIENTS.solution.min),
      })
      .default(DEFAULT_COEFFICIENTS.solution),
    kl: z
      .strictObject({
        mean: coefficientSchema.default(DEFAULT_COEFFICIENTS.kl.mean),
        max: coefficientSchema.default(DEFAULT_COEFFICIENTS.kl.max),
      })
      .default(DEFAULT_COEFFICIENTS.kl),
  })
  .openapi("Coefficients", {
    description: "reward = solution.mean·mean + solution.min·min − (kl.mean·mean + kl.max·max) + format penalty.",
  });

export const estimatorSchema = z
  .strictObject({
    estimator: z
      .enum(["k1", "k3", "full", "topk_tail"])
      .default("k1")
      .openapi({
        description:
          "k1: log π_T − log π_S on the token (the reference's). k3: k1 − 1 + e^−k1. full: whole vocabulary. topk_tail: " +
          "the teacher's top k and one bucket for the rest. full and topk_tail need one tokenizer for both models.",
      }),
    k: z.int().min(1).max(MAX_TOP_K).default(DEFAULT_TOP_K).openapi({ description: "Ranks kept by topk_tail." }),
  })
  .openapi("KlOptions");

const itemSchema = z.strictObject({
  question: itemTextSchema.openapi({ example: "What is 2+3?" }),
  solution: itemTextSchema.openapi({ example: "5" }),
  explanation: itemTextSchema.optional().openapi({ description: "Clean text, without tags." }),
  completion: itemTextSchema
    .optional()
    .openapi({ description: "A teacher's raw output, with or without its closing tag." }),
});

export type ScoreItem = z.output<typeof itemSchema>;

/** What is wrong with the texts of one item. */
export function faultOfItem(item: ScoreItem): { field: keyof ScoreItem; message: string } | undefined {
  for (const field of ["question", "solution", "explanation", "completion"] as const) {
    const message = faultOfText(item[field] ?? "", { filled: field === "question" || field === "solution" });
    if (message !== undefined) return { field, message };
  }
  return undefined;
}

/** An unfit item is an error in its place; where no other stands beside it the request itself is refused. */
const itemsSchema = boundedArray(itemSchema, { min: 1, max: MAX_SCORE_ITEMS }).superRefine((items, ctx) => {
  const first = items[0] && faultOfItem(items[0]);
  if (first && items.every(faultOfItem)) {
    ctx.addIssue({ code: "custom", message: first.message, path: [0, first.field] });
  }
});

export const createScoresSchema = z
  .strictObject({
    student: modelNameSchema,
    teacher: modelNameSchema.optional().openapi({
      description: "Without a teacher there is no KL: the reward is the student's side alone.",
    }),
    items: itemsSchema,
    temperature: z.number().min(0.01).max(100).default(DEFAULT_TEMPERATURE).openapi({
      description: "Logits of both models are divided by it, for the solution's tokens too.",
    }),
    coefficients: coefficientsSchema.default(DEFAULT_COEFFICIENTS),
    kl: estimatorSchema.default({ estimator: "k1", k: DEFAULT_TOP_K }),
    parity: z
      .boolean()
      .default(false)
      .openapi({
        description:
          "An empty explanation gets the reference code's numbers (mean = max = 1, no penalty), and numbers that a remote server " +
          "could only estimate are refused. Nothing else changes.",
      }),
    include: z
      .array(z.enum(["tokens", "baseline", "progress"]))
      .max(3)
      .default([]),
  })
  .openapi("CreateScores", {
    example: {
      student: "smollm2",
      teacher: "smollm2",
      items: [{ question: "What is 2+3?", solution: "5", explanation: "Two and three more make five." }],
    },
  });

export type CreateScores = z.output<typeof createScoresSchema>;

const tokenSchema = z.object({
  id: z.int(),
  text: z.string(),
  start: z
    .int()
    .openapi({ description: "Byte offset in the explanation, or in the solution as the student sees it (padded)." }),
  end: z.int(),
  rank: z.int().nullable().openapi({ description: "1 = the student's most likely token." }),
  entropy: z.number().nullable().openapi({ description: "Nats, of the student's distribution at this token." }),
});

export const scoreSchema = z
  .object({
    object: z.literal("score"),
    reward: z.number(),
    error_bound: z
      .number()
      .optional()
      .openapi({
        description:
          "Where a remote server reports log-probs at temperature 1 only: they are estimated from its most likely tokens, and the " +
          "exact reward lies within ± this. Absent: the reward is exact. parity: true refuses estimates.",
      }),
    solution: z.object({
      logprob_mean: z.number(),
      logprob_min: z.number(),
      reward: z.number(),
      text: z
        .string()
        .optional()
        .openapi({ description: "With include: tokens: the solution as the student sees it." }),
    }),
    kl: z
      .object({
        mean: z.number(),
        max: z.number(),
        reward: z.number().openapi({ description: "Already negated: the parts add up to the reward." }),
        estimator: z.enum(["k1", "k3", "full", "topk_tail"]),
      })
      .nullable(),
    format: z.object({
      ok: z.boolean(),
      penalty: z.number(),
      violations: z.array(
        z.enum(["missing_closing_tag", "empty_explanation", "student_tag", "control_token_text", "trailing_text"]),
      ),
    }),
    baseline: z
      .object({
        solution_logprob_mean: z.number(),
        uplift: z.number().openapi({ description: "What the explanation bought, in nats per token." }),
      })
      .optional(),
    progress: z.array(z.object({ end: z.int(), solution_logprob_mean: z.number() })).optional(),
    tokens: z
      .object({
        solution: z.array(
          tokenSchema.extend({ logprob: z.number(), baseline_logprob: z.number().nullable().optional() }),
        ),
        thought: z.array(
          tokenSchema.extend({
            teacher_logprob: z.number().nullable(),
            student_logprob: z.number(),
            kl: z.number().nullable(),
          }),
        ),
      })
      .optional(),
    tokens_from: z.enum(["ids", "text"]).openapi({
      description:
        "text: both models read the explanation as text. ids: the teacher's side are the tokens that it sampled, with the " +
        "log-probs they were drawn with (`rank_by` with a teacher that cannot score texts).",
    }),
    warnings: z.array(z.enum(["foreign_text", "estimated_logprobs", "no_thought_token"])),
    temperature: z.number(),
    coefficients: coefficientsSchema,
    parity: z.boolean(),
    student: namedVersionSchema,
    teacher: namedVersionSchema.nullable(),
  })
  .openapi("Score");

export type ScoreResource = z.infer<typeof scoreSchema>;

export const scoreErrorSchema = errorSchema.extend({ object: z.literal("error") }).openapi("ScoreError");

export const scoreListSchema = z
  .object({
    object: z.literal("list"),
    data: z.array(z.union([scoreSchema, scoreErrorSchema])),
    usage: z.object({
      scored_tokens: z.int().openapi({ description: "Tokens that went through a model for these scores." }),
      cached_tokens: z.int().openapi({ description: "Of them, how many the prefix caches had computed already." }),
    }),
  })
  .openapi("ScoreList");

export type ScoreList = z.infer<typeof scoreListSchema>;
