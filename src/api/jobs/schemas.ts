/** What the resources of all kinds of jobs have in common. */
import { z } from "@hono/zod-openapi";
import { listQuery, listSchema } from "../../http/list.ts";
import { errorSchema, metadataSchema, timestampSchema } from "../../http/schemas.ts";

export const jobStatusSchema = z.enum(["queued", "running", "paused", "succeeded", "failed", "cancelled"]);

/** Beside them a kind has its `object`, its `progress` and its `result`. */
export const jobFields = {
  created_at: timestampSchema,
  started_at: timestampSchema.nullable(),
  finished_at: timestampSchema.nullable(),
  status: jobStatusSchema,
  wanted: z.enum(["pause", "cancel"]).nullable().openapi({ description: "Asked for; obeyed at the next step." }),
  metrics: z.record(z.string(), z.number().nullable()).openapi({ description: "Latest value of each." }),
  config: z.record(z.string(), z.unknown()).openapi({ description: "The request with every default filled in." }),
  config_hash: z.string(),
  seed: z.int(),
  attempts: z.int().openapi({ description: "How often a worker took it up." }),
  error: errorSchema.shape.error.optional(),
  metadata: metadataSchema,
};

const MAX_QUERY = 2_000;

export const listJobsQuery = listQuery.extend({
  status: jobStatusSchema.optional(),
  metadata: z.string().max(MAX_QUERY).optional().openapi({
    description: "`key:value`; several, all of which must fit, are separated by commas.",
    example: "run:7",
  }),
});
export type ListJobsQuery = z.output<typeof listJobsQuery>;

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

export const jobEventSchema = z
  .object({
    id: z.string(),
    object: z.string().openapi({ example: "training.job.event" }),
    type: z.string().openapi({ example: "job.metrics" }),
    sequence_number: z.int(),
    created_at: timestampSchema,
    data: z.unknown(),
  })
  .openapi("JobEvent");
export type JobEventResource = z.infer<typeof jobEventSchema>;
export const jobEventListSchema = listSchema("JobEventList", jobEventSchema);

export const jobMetricsSchema = z
  .object({
    object: z.string().openapi({ example: "training.job.metrics" }),
    job: z.string(),
    data: z.record(z.string(), z.array(z.object({ step: z.int(), value: z.number().nullable() }))),
  })
  .openapi("JobMetrics");
export type JobMetricsResource = z.infer<typeof jobMetricsSchema>;
