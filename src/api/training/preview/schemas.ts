import { z } from "@hono/zod-openapi";
import { boundedArray, modelNameSchema } from "../../../http/schemas.ts";
import { MIN_TEMPERATURE } from "../../openai/limits.ts";
import { questionSchema, solutionSchema } from "../../texts.ts";
import { rewardsSchema } from "../jobs/request-schemas.ts";

/** A look, not a run: at most so many rows of at most so many explanations. */
const MAX_ROWS = 16;
const MAX_GENERATIONS = 64;

export const previewRequestSchema = z
  .strictObject({
    teacher: modelNameSchema,
    student: modelNameSchema.optional(),
    dataset: z.string().min(1).max(160).optional(),
    rows: z.int().min(1).max(MAX_ROWS).default(4).openapi({ description: "Of the dataset, its first ones." }),
    items: boundedArray(z.strictObject({ question: questionSchema, solution: solutionSchema }), {
      min: 1,
      max: MAX_ROWS,
    })
      .optional()
      .openapi({ description: "In place of a dataset." }),
    rewards: rewardsSchema.optional(),
    num_generations: z.int().min(2).max(MAX_GENERATIONS).default(8),
    temperature: z.number().min(MIN_TEMPERATURE).max(100).default(0.7),
    top_p: z.number().gt(0).max(1).default(1),
    max_completion_length: z.int().min(1).max(1_000_000).default(1024),
    seed: z.int().min(0).max(Number.MAX_SAFE_INTEGER).optional(),
  })
  .openapi("PreviewRewards", {
    example: {
      teacher: "smollm2",
      student: "smollm2",
      items: [{ question: "What is 2+3?", solution: "5" }],
      num_generations: 4,
    },
  });
export type PreviewRequest = z.output<typeof previewRequestSchema>;

export const previewSchema = z
  .object({
    object: z.literal("rewards.preview"),
    data: z.array(
      z.object({
        question: z.string(),
        solution: z.string(),
        reward_mean: z.number(),
        reward_std: z.number(),
        silent: z.boolean().openapi({ description: "All rewards are equal: nothing is learnt from this group." }),
        completions: z.array(
          z.object({
            completion: z.string(),
            tokens: z.int(),
            ended: z.boolean().openapi({ description: "By its tag or the end of turn, not by the limit." }),
            reward: z.number(),
            parts: z.record(z.string(), z.number()).openapi({ description: "Each reward before its weight." }),
            advantage: z.number(),
          }),
        ),
      }),
    ),
    reward: z.number(),
    reward_std: z.number(),
    frac_reward_zero_std: z.number(),
    clipped_ratio: z.number(),
    seed: z.int(),
  })
  .openapi("RewardsPreview");
export type Preview = z.infer<typeof previewSchema>;
