import { z } from "@hono/zod-openapi";
import { boundedArray, modelNameSchema } from "../../http/schemas.ts";
import {
  MAX_LOGPROBS,
  MAX_N,
  MAX_REPORTED_LOGPROBS,
  MAX_SCORING_TEMPERATURE,
  MAX_STOP_CHARS,
  MAX_STOP_IDS,
  MAX_STOPS,
  MAX_TEMPERATURE,
  WHOLE_VOCABULARY,
} from "./limits.ts";

/** Ids are judged where the model is known (checkIds), so that a wrong one is always `invalid_token_ids`. */
export function idListSchema(max: number) {
  return z
    .custom<number[]>(Array.isArray, "expected a list of token ids")
    .refine((ids) => !Array.isArray(ids) || ids.length <= max, `at most ${max} token ids`)
    .openapi({ type: "array", items: { type: "integer", minimum: 0 }, maxItems: max });
}

/** Fields that completions and chats share. `null` means the default everywhere, as OpenAI's document has it. */
export const samplingFields = {
  model: modelNameSchema,
  n: z.int().min(1).max(MAX_N).nullish().openapi({ description: "Choices per prompt (default 1)." }),
  temperature: z
    .number()
    .min(0)
    .max(MAX_TEMPERATURE)
    .nullish()
    .openapi({ description: "Logits are divided by it (default 1); 0 takes the most likely token." }),
  top_p: z.number().min(0).max(1).nullish().openapi({ description: "Nucleus sampling (default 1: everything)." }),
  top_k: z.int().min(-1).nullish().openapi({ description: "Sample among the k most likely; 0 or −1 (default): all." }),
  seed: z
    .int()
    .min(0)
    .nullish()
    .openapi({
      description:
        "Choice i draws from a stream made of (seed, i), whatever else is in the request: a prompt gives the same " +
        "text alone and in a list. A random 32-bit seed when absent; the answer names it.",
    }),
  stop: z
    .union([z.string(), boundedArray(z.string(), { max: MAX_STOPS })])
    .nullish()
    .openapi({ description: `Up to ${MAX_STOPS} strings of up to ${MAX_STOP_CHARS} characters that end the text.` }),
  stop_token_ids: idListSchema(MAX_STOP_IDS)
    .nullish()
    .openapi({ type: ["array", "null"], description: "Sampling one of these ends the choice; its text is left out." }),
  include_stop_str_in_output: z
    .boolean()
    .nullish()
    .openapi({ description: "Keep what ended the text in it: the stop string, or the text of the stop token." }),
  ignore_eos: z.boolean().nullish().openapi({ description: "Go on after the model's end of turn." }),
  skip_special_tokens: z
    .boolean()
    .nullish()
    .openapi({ description: "Leave special tokens out of the text (default true)." }),
  stream: z.boolean().nullish(),
  stream_options: z
    .strictObject({
      include_usage: z.boolean().nullish(),
      include_obfuscation: z.literal(false).nullish(),
    })
    .nullish(),
  prompt_logprobs: z
    .int()
    .min(WHOLE_VOCABULARY)
    .max(MAX_LOGPROBS)
    .nullish()
    .openapi({
      description:
        "Log-probs of the prompt's tokens, with this many alternatives each: `choices[i].prompt_logprobs` holds per token " +
        "null (the first) or `{id: {logprob, rank, decoded_token}}`, the prompt's own token always among them. −1: all ids " +
        `of the vocabulary, each with its rank, where the answer stays within ${MAX_REPORTED_LOGPROBS} log-probs (use ` +
        "`prompt_logprobs_from`); `usage` then counts no cached tokens.",
    }),
  prompt_logprobs_from: z
    .int()
    .min(1)
    .nullish()
    .openapi({
      description:
        "First position of `prompt_logprobs` (default 1), the same for every prompt: entries before it are null, and " +
        "nothing is computed for them. At the prompt's length or beyond, all entries are null. Does not concern `echo`.",
    }),
  prompt_logprobs_temperature: z
    .number()
    .min(0.01)
    .max(MAX_SCORING_TEMPERATURE)
    .nullish()
    .openapi({ description: "Logits are divided by it before `prompt_logprobs` (default 1)." }),
  return_token_ids: z
    .boolean()
    .nullish()
    .openapi({ description: "Add `token_ids` and `prompt_token_ids` to the choices." }),
  user: z
    .string()
    .max(512)
    .nullish()
    .openapi({
      description:
        "Whom the request is for. Where requests wait, those of one API key's different users take turns; without keys it " +
        "makes no difference.",
    }),
};

/** The same as plain data, for the services. */
export type SamplingFields = z.output<z.ZodObject<typeof samplingFields>>;

const position = z.record(z.string(), z.object({ logprob: z.number(), rank: z.int(), decoded_token: z.string() }));

export const promptLogprobsSchema = z.array(position.nullable()).openapi("PromptLogprobs", {
  description:
    "One entry per prompt token, by token id; null for the first token and for those before `prompt_logprobs_from`.",
});

export const usageSchema = z
  .object({
    prompt_tokens: z.int().openapi({ description: "Each prompt counted once, whatever n is." }),
    completion_tokens: z.int().openapi({ description: "Sampled tokens, the end of turn included." }),
    total_tokens: z.int(),
    prompt_tokens_details: z.object({
      cached_tokens: z.int().openapi({
        description: "Of prompt_tokens, how many the prefix cache had when the engine first saw the prompt.",
      }),
    }),
  })
  .openapi("Usage");

export type Usage = z.infer<typeof usageSchema>;

export const samplingEchoSchema = z
  .object({
    temperature: z.number(),
    top_p: z.number(),
    top_k: z.int(),
    max_tokens: z.int(),
    seed: z.int(),
    logprobs_temperature: z.literal(1),
    prompt_logprobs_temperature: z.number().optional(),
  })
  .openapi("CompletionSampling", { description: "The parameters that made this answer, defaults filled in." });

export type SamplingEcho = z.infer<typeof samplingEchoSchema>;

/** Extensions at the top of every answer: enough to make it again. */
export const provenanceFields = {
  system_fingerprint: z.string().openapi({ description: "The model's version that answered.", example: "smollm2@1" }),
  seed: z.int(),
  sampling: samplingEchoSchema,
};

export const choiceExtensionFields = {
  stop_reason: z
    .union([z.string(), z.int()])
    .nullable()
    .openapi({ description: "The stop string or stop_token_ids entry that ended the text; null otherwise." }),
  token_ids: z.array(z.int()).optional(),
  prompt_token_ids: z.array(z.int()).optional(),
  prompt_logprobs: promptLogprobsSchema.optional(),
};

export const finishReasonSchema = z.enum(["stop", "length"]);
