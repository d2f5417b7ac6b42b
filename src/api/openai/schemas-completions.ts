import { z } from "@hono/zod-openapi";
import { MAX_LOGPROBS, MAX_PROMPTS } from "./limits.ts";
import { COMPLETION_NEUTRAL, neutralShape } from "./neutral-fields.ts";
import type { PromptInput } from "./prompts.ts";
import {
  choiceExtensionFields,
  finishReasonSchema,
  provenanceFields,
  samplingFields,
  usageSchema,
} from "./schemas-sampling.ts";

const idsDocument = { type: "array" as const, items: { type: "integer" as const, minimum: 0 } };

/** Looked at element by element in prompts.ts: a union here would try every branch on millions of ids. */
const promptSchema = z
  .custom<PromptInput>((value) => typeof value === "string" || Array.isArray(value), {
    error: (issue) =>
      issue.input === undefined
        ? "is required (text, token ids, or a list of them)"
        : "expected text, token ids, or a list of them",
  })
  .openapi({
    type: ["string", "array"],
    description: "Raw text (special tokens in it are parsed), token ids, or a list of either.",
    oneOf: [
      { type: "string" },
      { type: "array", items: { type: "string" }, maxItems: MAX_PROMPTS },
      idsDocument,
      { type: "array", items: idsDocument, maxItems: MAX_PROMPTS },
    ],
  });

export const completionRequestSchema = z
  .strictObject({
    ...samplingFields,
    prompt: promptSchema,
    max_tokens: z
      .int()
      .min(0)
      .nullish()
      .openapi({
        description:
          "Tokens to sample at most (default 16; fewer when the context ends). 0 samples nothing: with `echo` and " +
          "`logprobs`, or `prompt_logprobs`, the prompt is only scored.",
      }),
    echo: z.boolean().nullish().openapi({ description: "The text begins with the prompt." }),
    logprobs: z
      .int()
      .min(0)
      .max(MAX_LOGPROBS)
      .nullish()
      .openapi({
        description:
          "Log-probs of the text's tokens with this many alternatives each, in nats, of the model's own distribution: " +
          "at temperature 1, before top_p and top_k, whatever the sampling temperature is (as OpenAI and vLLM report them).",
      }),
    return_tokens_as_token_ids: z
      .boolean()
      .nullish()
      .openapi({
        description:
          "With `logprobs`: `tokens` and the keys of `top_logprobs` are `token_id:<id>` instead of text (default false). " +
          "`text_offset` stays the place in the text.",
      }),
    add_special_tokens: z
      .boolean()
      .nullish()
      .openapi({ description: "Put the tokenizer's own special tokens (BOS) around text prompts (default true)." }),
    ...neutralShape(COMPLETION_NEUTRAL),
  })
  .openapi("CreateCompletion", { example: { model: "smollm2", prompt: "The capital of France is", max_tokens: 8 } });

export type CompletionRequest = z.output<typeof completionRequestSchema>;

const ESTIMATES =
  "Nats, beside token_logprobs, where these are estimates: a remote model that is registered with `tempered` reports its " +
  "log-probs at that temperature. Each log-prob of the token is wrong by at most so much; null: exact. Absent: all are exact.";

export const completionLogprobsSchema = z
  .object({
    tokens: z.array(z.string()).openapi({
      description:
        "Parts of characters as `bytes:\\xf0\\x9f`, ids without text (with `return_tokens_as_token_ids` all) as `token_id:504`.",
    }),
    token_logprobs: z.array(z.number().nullable()),
    error_bound: z.array(z.number().nullable()).optional().openapi({ description: ESTIMATES }),
    top_logprobs: z.array(z.record(z.string(), z.number()).nullable()).openapi({
      description: "By token; the sampled token is always among them.",
    }),
    text_offset: z
      .array(z.int())
      .openapi({ description: "Where each token begins in the text, in Unicode characters." }),
  })
  .openapi("CompletionLogprobs");

export type CompletionLogprobs = z.infer<typeof completionLogprobsSchema>;

export const completionChoiceSchema = z.object({
  index: z.int().openapi({ description: "Choice i of prompt j has the index j·n + i." }),
  text: z.string(),
  logprobs: z.union([completionLogprobsSchema, z.null()]),
  finish_reason: finishReasonSchema,
  ...choiceExtensionFields,
});

export type CompletionChoice = z.infer<typeof completionChoiceSchema>;

export const completionSchema = z
  .object({
    id: z.string(),
    object: z.literal("text_completion"),
    created: z.int(),
    model: z.string(),
    choices: z.array(completionChoiceSchema),
    usage: usageSchema,
    ...provenanceFields,
  })
  .openapi("Completion");

export type Completion = z.infer<typeof completionSchema>;

/** A chunk is a completion in the making: its fields are those of the whole, `sampling` and `seed` in the first one only. */
export interface CompletionChunk extends Omit<Completion, "choices" | "usage" | "seed" | "sampling"> {
  choices: (Omit<CompletionChoice, "finish_reason"> & { finish_reason: CompletionChoice["finish_reason"] | null })[];
  usage?: Completion["usage"] | null;
  seed?: number;
  sampling?: Completion["sampling"];
}
