import { z } from "@hono/zod-openapi";

export const openaiModelSchema = z
  .object({
    id: z.string().openapi({ example: "smollm2" }),
    object: z.literal("model"),
    created: z.int(),
    owned_by: z.literal("preceptor"),
  })
  .openapi("Model");

export type OpenaiModel = z.infer<typeof openaiModelSchema>;
