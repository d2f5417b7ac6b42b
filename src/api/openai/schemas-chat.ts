import { z } from "@hono/zod-openapi";
import { boundedArray } from "../../http/schemas.ts";
import { MAX_LOGPROBS, MAX_MESSAGES } from "./limits.ts";
import { CHAT_NEUTRAL, neutralShape } from "./neutral-fields.ts";
import {
  choiceExtensionFields,
  finishReasonSchema,
  promptLogprobsSchema,
  provenanceFields,
  samplingFields,
  usageSchema,
} from "./schemas-sampling.ts";

/** Parts in one message; each becomes a line of the same text. */
const MAX_PARTS = 1024;

/** Kept loose: a part that is not text is refused by name in chat-messages.ts, not as a wrong type. */
const partSchema = z
  .looseObject({ type: z.string(), text: z.string().optional() })
  .openapi({ description: '`{type: "text", text}`; other kinds are refused.' });

const messageSchema = z
  .strictObject({
    role: z
      .enum(["system", "developer", "user", "assistant", "tool"])
      .openapi({ description: "`developer` is rendered as `system`." }),
    content: z
      .union([z.string(), boundedArray(partSchema, { max: MAX_PARTS })])
      .nullish()
      .openapi({ description: "Special tokens in it are text. May be null for the assistant only." }),
    tool_call_id: z
      .string()
      .max(512)
      .nullish()
      .openapi({ description: "Accepted with role `tool`; templates show the content alone." }),
    name: z.unknown().optional(),
    refusal: z.unknown().optional(),
    audio: z.unknown().optional(),
    tool_calls: z.unknown().optional(),
    function_call: z.unknown().optional(),
  })
  .openapi("ChatMessage");

export type ChatMessageInput = z.output<typeof messageSchema>;

const maxTokens = z.int().min(0).nullish();

export const chatRequestSchema = z
  .strictObject({
    ...samplingFields,
    messages: boundedArray(messageSchema, { min: 1, max: MAX_MESSAGES }),
    max_completion_tokens: maxTokens.openapi({
      description: "Tokens to sample at most; default: as many as the context holds.",
    }),
    max_tokens: maxTokens.openapi({ description: "The older name of max_completion_tokens." }),
    logprobs: z
      .boolean()
      .nullish()
      .openapi({
        description:
          "Report log-probs of the sampled tokens, in nats, of the model's own distribution: at temperature 1, before " +
          "top_p and top_k, whatever the sampling temperature is (as OpenAI and vLLM report them).",
      }),
    top_logprobs: z
      .int()
      .min(0)
      .max(MAX_LOGPROBS)
      .nullish()
      .openapi({ description: "Alternatives per token; needs `logprobs: true`." }),
    ...neutralShape(CHAT_NEUTRAL),
  })
  .openapi("CreateChatCompletion", {
    example: { model: "smollm2", messages: [{ role: "user", content: "What is 2+3?" }], max_completion_tokens: 32 },
  });

export type ChatRequest = z.output<typeof chatRequestSchema>;

const tokenFields = {
  token: z.string(),
  logprob: z.number(),
  bytes: z.array(z.int()).nullable().openapi({ description: "UTF-8 of the token; null where it has no text." }),
};

export const chatLogprobsSchema = z
  .object({
    content: z.array(
      z.object({
        ...tokenFields,
        error_bound: z
          .number()
          .optional()
          .openapi({
            description:
              "Nats. Where it is, a remote model reports log-probs at another temperature (`tempered`): this one and its " +
              "alternatives are estimates, wrong by at most so much.",
          }),
        top_logprobs: z.array(z.object(tokenFields)),
      }),
    ),
    refusal: z.null(),
  })
  .openapi("ChatLogprobs");

export type ChatLogprobs = z.infer<typeof chatLogprobsSchema>;

export const chatChoiceSchema = z.object({
  index: z.int(),
  message: z.object({ role: z.literal("assistant"), content: z.string(), refusal: z.null() }),
  logprobs: z.union([chatLogprobsSchema, z.null()]),
  finish_reason: finishReasonSchema,
  ...choiceExtensionFields,
});

export type ChatChoice = z.infer<typeof chatChoiceSchema>;

export const chatCompletionSchema = z
  .object({
    id: z.string(),
    object: z.literal("chat.completion"),
    created: z.int(),
    model: z.string(),
    choices: z.array(chatChoiceSchema),
    usage: usageSchema,
    // vLLM has these beside the choices of a chat, since all share one prompt; they stand in both places.
    prompt_token_ids: z.array(z.int()).optional(),
    prompt_logprobs: promptLogprobsSchema.optional(),
    ...provenanceFields,
  })
  .openapi("ChatCompletion");

export type ChatCompletion = z.infer<typeof chatCompletionSchema>;

/** `sampling` and `seed` stand in the first chunk only. */
export interface ChatChunk {
  id: string;
  object: "chat.completion.chunk";
  created: number;
  model: string;
  system_fingerprint: string;
  choices: ChatChunkChoice[];
  usage?: ChatCompletion["usage"] | null;
  seed?: number;
  sampling?: ChatCompletion["sampling"];
}

export interface ChatChunkChoice extends Omit<ChatChoice, "message" | "finish_reason"> {
  delta: { role?: "assistant"; content?: string };
  finish_reason: ChatChoice["finish_reason"] | null;
}
