import { z } from "@hono/zod-openapi";

export const openaiModelSchema = z
  .object({
    id: z.string().openapi({ example: "smollm2" }),
    object: z.literal("model"),
    created: z.int(),
    owned_by: z.literal("preceptor"),
    max_model_len: z.int().nullable().openapi({
      description: "Its context in tokens (as vLLM tells it); null where its files have not been read yet.",
    }),
  })
  .openapi("Model");

export type OpenaiModel = z.infer<typeof openaiModelSchema>;
