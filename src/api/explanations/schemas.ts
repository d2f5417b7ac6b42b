import { z } from "@hono/zod-openapi";
import { listQuery, listSchema } from "../../http/list.ts";
import {
  errorSchema,
  metadataSchema,
  modelNameSchema,
  namedVersionSchema,
  timestampSchema,
} from "../../http/schemas.ts";
import { DEFAULT_TEMPERATURE } from "../../rlt/reward.ts";
import { MIN_TEMPERATURE } from "../openai/limits.ts";
import { estimatorSchema, scoreSchema } from "../scores/schemas.ts";
import { questionSchema, solutionSchema } from "../texts.ts";

/** Twice the paper's group of 64: enough for any best-of-n, small enough not to starve other callers. */
export const MAX_SAMPLES = 128;
/** What an explanation may take when the caller names no limit: long enough for most, short on a slow machine. */
export const DEFAULT_MAX_TOKENS = 1024;
const MAX_TOKENS = 1_000_000;
const MAX_SEED = Number.MAX_SAFE_INTEGER;

const rankBySchema = z
  .strictObject({
    student: modelNameSchema,
    metric: z.enum(["reward", "solution_logprob_mean"]).default("reward"),
    kl: estimatorSchema.optional(),
  })
  .openapi("RankBy", { description: "Score every choice with this student; `best` is the index of the best one." });

export const createExplanationSchema = z
  .strictObject({
    teacher: modelNameSchema,
    question: questionSchema,
    solution: solutionSchema,
    n: z.int().min(1).max(MAX_SAMPLES).default(1),
    temperature: z
      .number()
      .min(0)
      .max(100)
      .refine((t) => t === 0 || t >= MIN_TEMPERATURE, `must be 0 (greedy) or at least ${MIN_TEMPERATURE}`)
      .default(DEFAULT_TEMPERATURE)
      .openapi({ description: "0 is greedy." }),
    top_p: z.number().gt(0).max(1).default(1),
    top_k: z.int().min(0).max(1_000_000).default(0).openapi({ description: "0 keeps every token." }),
    max_tokens: z.int().min(1).max(MAX_TOKENS).optional().openapi({
      description: "Default: 1024 or what the context leaves, whichever is smaller.",
    }),
    seed: z.int().min(0).max(MAX_SEED).optional().openapi({
      description: "Random when absent, and echoed. The same request with the same seed gives the same text.",
    }),
    stream: z.boolean().default(false),
    background: z
      .boolean()
      .default(false)
      .openapi({
        description:
          "Answer at once; poll GET /v1/explanations/{id}, whose `queue` says where it stands while it waits. Requests that " +
          "somebody waits for go first.",
      }),
    store: z.boolean().default(true).openapi({ description: "false: the explanation is not kept." }),
    rank_by: rankBySchema.optional(),
    include: z
      .array(z.enum(["tokens", "prompt", "familiarity"]))
      .max(3)
      .default([])
      .openapi({
        description:
          "tokens: ids and log-probs of every choice. prompt: what the teacher read. familiarity: how far the problem is from what the " +
          "teacher knows, and with `rank_by` from what that student knows (docs/method.md says how to read it).",
      }),
    metadata: metadataSchema.default({}),
  })
  .openapi("CreateExplanation", {
    example: { teacher: "smollm2", question: "What is 2+3?", solution: "5", max_tokens: 200 },
  });

export type CreateExplanation = z.output<typeof createExplanationSchema>;

const queueSchema = z
  .object({
    position: z.int().min(1).openapi({ description: "1 is next." }),
    reason: z.enum([
      "turn",
      "slots",
      "memory",
      "client_limit",
      "backend",
      "background",
      "model_loading",
      "queue_full",
      "overloaded",
      "backend_unavailable",
    ]),
  })
  .openapi("ExplanationQueue", {
    description:
      "While it waits. In the engine (as `explanation.queued` says it): `turn`: other requests or clients come first, " +
      "`slots`: as many sequences as fit are being decoded, `memory`: no room for more keys and values, `client_limit`: " +
      "this client has its share, `backend`: no server of a remote model answers at this moment. Before that, with `background: true`: `background`: as many as the server works on at " +
      "once are under way, or the error (`model_loading`, `queue_full`, `overloaded`, `backend_unavailable`) after which it is tried again.",
  });

const surpriseSchema = z.object({
  mean: z.number().openapi({ description: "Nats per token of the solution." }),
  max: z.number().openapi({ description: "Nats, of its least expected token." }),
  tokens: z.int(),
  error_bound: z.number().optional().openapi({
    description:
      "Where a remote server reports log-probs at temperature 1 only: both are estimates, wrong by at most so much.",
  }),
});

export const familiaritySchema = z
  .object({
    teacher_surprise: surpriseSchema.nullable().openapi({
      description:
        "−log p of the solution's tokens, the teacher having read the question. Null: its engine cannot score texts.",
    }),
    student_surprise: surpriseSchema
      .nullable()
      .openapi({ description: "The same of the student, without an explanation. Null: no `rank_by`." }),
    kl_mean: z.number().nullable().openapi({
      description:
        "Teacher against student over the explanation's tokens, by the estimator of `rank_by`. Null: nothing was compared.",
    }),
    kl_max: z.number().nullable(),
    kl_tokens: z.int().openapi({ description: "Tokens that `kl_mean` is taken over." }),
    uplift: z.number().nullable().openapi({
      description: "What the explanation bought the student, in nats per token of the solution. Null: not scored.",
    }),
  })
  .openapi("Familiarity", {
    description:
      "How far the problem is from what teacher and student know, in nats at the temperature of the sampling (1 when greedy). Of the " +
      "whole explanation: the KL over the tokens of all choices, the mean of their uplifts.",
  });

const choiceSchema = z.object({
  index: z.int(),
  explanation: z.string().openapi({ description: "The completion up to the first closing tag, verbatim." }),
  finish_reason: z.enum(["stop", "length", "cancelled"]),
  score: scoreSchema.optional(),
  score_error: errorSchema.shape.error.optional().openapi({
    description: "Why `rank_by` could not score this choice (it is too long for the student, for example).",
  }),
  familiarity: familiaritySchema.optional(),
  tokens: z
    .array(
      z.object({
        id: z.int(),
        text: z.string(),
        logprob: z.number(),
        error_bound: z.number().optional().openapi({
          description:
            "Nats. Where it is, a remote server reports log-probs at temperature 1 only: this one is an estimate, wrong by at most so much.",
        }),
      }),
    )
    .optional(),
});

export const explanationSchema = z
  .object({
    id: z.string().openapi({ example: "expl_3f9k…" }),
    object: z.literal("explanation"),
    created_at: timestampSchema,
    status: z.enum(["queued", "in_progress", "completed", "failed", "cancelled"]),
    queue: queueSchema.optional(),
    teacher: namedVersionSchema,
    question: z.string(),
    solution: z.string(),
    choices: z.array(choiceSchema),
    best: z.int().optional(),
    familiarity: familiaritySchema.optional(),
    rank_by: z
      .object({
        student: namedVersionSchema,
        metric: z.string(),
        kl: estimatorSchema,
      })
      .optional(),
    prompt: z.string().optional(),
    usage: z.object({
      prompt_tokens: z.int(),
      completion_tokens: z.int(),
      cached_tokens: z.int().openapi({ description: "Of the prompt's tokens, how many the prefix cache had." }),
      scored_tokens: z.int(),
    }),
    sampling: z.object({
      n: z.int(),
      temperature: z.number(),
      top_p: z.number(),
      top_k: z.int(),
      max_tokens: z.int(),
      seed: z.int(),
    }),
    error: errorSchema.shape.error.optional(),
    metadata: metadataSchema,
  })
  .openapi("Explanation");

export type ExplanationResource = z.infer<typeof explanationSchema>;
export type Choice = z.infer<typeof choiceSchema>;

export const explanationListSchema = listSchema("ExplanationList", explanationSchema);

export const listExplanationsQuery = listQuery.extend({
  teacher: z.string().min(1).max(160).optional().openapi({ description: "Only those of this teacher (id)." }),
  status: z.enum(["queued", "in_progress", "completed", "failed", "cancelled"]).optional(),
});
