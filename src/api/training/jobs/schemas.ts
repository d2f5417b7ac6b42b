/** What the training routes answer. */
import { z } from "@hono/zod-openapi";
import { jobFields, listJobsQuery } from "../../jobs/schemas.ts";

export const trainingJobSchema = z
  .object({
    id: z.string().openapi({ example: "tjob_7d1m…" }),
    object: z.literal("training.job"),
    method: z.enum(["sft", "rlt"]),
    ...jobFields,
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
    result: z
      .object({
        checkpoint: z.string().optional(),
        step: z.int().optional(),
        teacher: z.string().optional(),
        student: z.string().optional(),
        stopped_early: z.boolean().optional(),
      })
      .optional(),
  })
  .openapi("TrainingJob");
export type TrainingJob = z.infer<typeof trainingJobSchema>;

export const listTrainingJobsQuery = listJobsQuery.extend({ method: z.enum(["sft", "rlt"]).optional() });
