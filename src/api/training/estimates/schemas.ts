import { z } from "@hono/zod-openapi";

export const estimateSchema = z
  .object({
    object: z.literal("training.estimate"),
    steps: z.int(),
    rows: z.int().openapi({ description: "That are trained on." }),
    tokens: z
      .object({ sampled: z.int(), scored: z.int(), trained: z.int() })
      .openapi({ description: "At most: every explanation is taken to be as long as it may become." }),
    seconds: z.number(),
    rate: z.object({
      tokens_per_second: z.number(),
      basis: z.enum(["measured", "assumed"]),
      source: z.string().openapi({ description: "The job it was measured in, or what is assumed." }),
    }),
    memory_bytes: z
      .int()
      .openapi({ description: "Weights, gradients and optimizer; activations and caches come on top." }),
    disk_bytes: z.int().openapi({ description: "Of the checkpoints that are kept at a time." }),
    config: z.record(z.string(), z.unknown()),
  })
  .openapi("TrainingEstimate");
export type Estimate = z.infer<typeof estimateSchema>;
