/** What the training routes answer. */
import { z } from "@hono/zod-openapi";
import { listQuery, listSchema } from "../../../http/list.ts";
import { errorSchema, metadataSchema, timestampSchema } from "../../../http/schemas.ts";

const statusSchema = z.enum(["queued", "running", "paused", "succeeded", "failed", "cancelled"]);

export const trainingJobSchema = z
  .object({
    id: z.string().openapi({ example: "tjob_7d1m…" }),
    object: z.literal("training.job"),
    created_at: timestampSchema,
    started_at: timestampSchema.nullable(),
    finished_at: timestampSchema.nullable(),
    method: z.enum(["sft", "rlt"]),
    status: statusSchema,
    wanted: z.enum(["pause", "cancel"]).nullable().openapi({ description: "Asked for; obeyed at the next step." }),
    progress: z
      .object({
        step: z.int(),
        total_steps: z.int().nullable(),
        percent: z.number(),
        eta_seconds: z.number().nullable(),
        phase: z.enum(["warmup", "main"]).nullable(),
        tokens_sampled: z.int(),
        tokens_scored: z.int(),
        tokens_trained: z.int(),
      })
      .openapi({ description: "Of all phases together." }),
    metrics: z.record(z.string(), z.number().nullable()).openapi({ description: "Latest value of each." }),
    config: z.record(z.string(), z.unknown()).openapi({ description: "The request with every default filled in." }),
    config_hash: z.string(),
    seed: z.int(),
    attempts: z.int().openapi({ description: "How often a worker took it up." }),
    result: z
      .object({
        checkpoint: z.string().optional(),
        step: z.int().optional(),
        teacher: z.string().optional(),
        student: z.string().optional(),
        stopped_early: z.boolean().optional(),
      })
      .optional(),
    error: errorSchema.shape.error.optional(),
    metadata: metadataSchema,
  })
  .openapi("TrainingJob");
export type TrainingJob = z.infer<typeof trainingJobSchema>;
export const trainingJobListSchema = listSchema("TrainingJobList", trainingJobSchema);

const MAX_QUERY = 2_000;

export const listTrainingJobsQuery = listQuery.extend({
  status: statusSchema.optional(),
  method: z.enum(["sft", "rlt"]).optional(),
  metadata: z.string().max(MAX_QUERY).optional().openapi({
    description: "`key:value`; several, all of which must fit, are separated by commas.",
    example: "run:7",
  }),
});

export const trainingEventSchema = z
  .object({
    id: z.string(),
    object: z.literal("training.job.event"),
    type: z.string().openapi({ example: "job.metrics" }),
    sequence_number: z.int(),
    created_at: timestampSchema,
    data: z.unknown(),
  })
  .openapi("TrainingJobEvent");
export type TrainingEvent = z.infer<typeof trainingEventSchema>;
export const trainingEventListSchema = listSchema("TrainingJobEventList", trainingEventSchema);

/** Events are many and small: a thousand are a page. */
const MAX_EVENTS = 1_000;

export const listEventsQuery = z.strictObject({
  after: z.coerce.number().int().min(0).default(0).openapi({ description: "Sequence number of the last event seen." }),
  limit: z.coerce.number().int().min(1).max(MAX_EVENTS).default(100),
  stream: z.stringbool().default(false).openapi({ description: "As `Accept: text/event-stream`." }),
});

export const metricsQuery = z.strictObject({
  names: z
    .string()
    .max(MAX_QUERY)
    .optional()
    .openapi({ description: "Separated by commas; default: all.", example: "reward,kl" }),
  every: z.coerce.number().int().min(1).max(1e9).default(1).openapi({ description: "One point per so many steps." }),
  after: z.coerce.number().int().min(0).optional().openapi({ description: "Only steps beyond this one." }),
});

export const metricSeriesSchema = z
  .object({
    object: z.literal("training.job.metrics"),
    job: z.string(),
    data: z.record(z.string(), z.array(z.object({ step: z.int(), value: z.number().nullable() }))),
  })
  .openapi("TrainingJobMetrics");
export type MetricSeries = z.infer<typeof metricSeriesSchema>;
