/** What the distillation routes answer. */
import { z } from "@hono/zod-openapi";
import { jobFields } from "../jobs/schemas.ts";

const count = z.int();

export const distillationJobSchema = z
  .object({
    id: z.string().openapi({ example: "djob_7d1m…" }),
    object: z.literal("distillation.job"),
    ...jobFields,
    progress: z.object({
      step: count,
      stage: z.enum(["generate", "write", "finetune", "evaluate"]),
      part: z.string().nullable(),
      questions: count,
      total_questions: count.nullable(),
      accepted: count,
      rejected: z.record(z.string(), count).openapi({ description: "By reason." }),
      percent: z.number(),
      eta_seconds: z.number().nullable(),
      tokens_sampled: count,
      tokens_scored: count,
      tokens_trained: count,
      tokens_per_second: z.number().nullable(),
      seconds: z.number(),
    }),
    output_dataset: z.string().nullable().openapi({ description: "Of the accepted rows, once they are all there." }),
    error_dataset: z.string().nullable().openapi({ description: "Of the rejected ones, each with its reason." }),
    result: z.record(z.string(), z.unknown()).optional(),
  })
  .openapi("DistillationJob");
export type DistillationJob = z.infer<typeof distillationJobSchema>;

export const liveRowsSchema = z
  .object({
    object: z.literal("list"),
    data: z.array(z.record(z.string(), z.unknown())),
    has_more: z.boolean().openapi({ description: "More are there already; others may follow while the job runs." }),
  })
  .openapi("DistillationRows");
export type LiveRows = z.infer<typeof liveRowsSchema>;
