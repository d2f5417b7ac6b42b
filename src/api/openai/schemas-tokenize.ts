import { z } from "@hono/zod-openapi";
import { modelNameSchema } from "../../http/schemas.ts";
import { MAX_DETOKENIZE_IDS, MAX_TOKENIZE_CHARS } from "./limits.ts";
import { chatRequestSchema } from "./schemas-chat.ts";
import { idListSchema } from "./schemas-sampling.ts";

export const tokenizeRequestSchema = z
  .strictObject({
    model: modelNameSchema,
    prompt: z
      .string()
      .max(MAX_TOKENIZE_CHARS)
      .nullish()
      .openapi({ description: "Raw text; special tokens in it are parsed." }),
    messages: chatRequestSchema.shape.messages
      .nullish()
      .openapi({ description: "A chat, instead of `prompt`, rendered with the model's template." }),
    add_special_tokens: z
      .boolean()
      .nullish()
      .openapi({ description: "Add the tokenizer's own special tokens (default true). A chat has its template's." }),
    add_generation_prompt: z
      .boolean()
      .nullish()
      .openapi({ description: "With `messages`: end with the beginning of the assistant's turn (always so)." }),
    return_token_strs: z.boolean().nullish().openapi({ description: "Add `token_strs`, the text of each token." }),
  })
  .openapi("Tokenize", { example: { model: "smollm2", prompt: "What is 2+3?" } });

export type TokenizeRequest = z.output<typeof tokenizeRequestSchema>;

export const tokenizeResponseSchema = z
  .object({
    tokens: z.array(z.int()),
    count: z.int(),
    max_model_len: z.int().nullable().openapi({
      description: "The model's context in tokens; null where only a remote server knows it and does not answer.",
    }),
    token_strs: z.array(z.string()).optional(),
  })
  .openapi("Tokenized");

export type TokenizeResponse = z.infer<typeof tokenizeResponseSchema>;

export const detokenizeRequestSchema = z
  .strictObject({ model: modelNameSchema, tokens: idListSchema(MAX_DETOKENIZE_IDS) })
  .openapi("Detokenize", { example: { model: "smollm2", tokens: [2, 3] } });

export type DetokenizeRequest = z.output<typeof detokenizeRequestSchema>;

export const detokenizeResponseSchema = z
  .object({ prompt: z.string().openapi({ description: "Special tokens spelled out; broken characters as U+FFFD." }) })
  .openapi("Detokenized");

export type DetokenizeResponse = z.infer<typeof detokenizeResponseSchema>;
