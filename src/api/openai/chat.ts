import { fail } from "../../errors.ts";
import type { HeldModel } from "../models/registry.ts";
import { addToMessage, chatDeltas, emptyMessage, isSilent } from "./chat-chunks.ts";
import { toChatMessages } from "./chat-messages.ts";
import { type GenerationCaller, type Job, provenanceOf, usageOf } from "./generate.ts";
import { CHAT_NEUTRAL } from "./neutral-fields.ts";
import { chunksOf, type GenerationDeps, headOf, openJob } from "./open-job.ts";
import { checkContext, encodeChat } from "./prompts.ts";
import { checkSize, resolveSpec } from "./sampling.ts";
import type { ChatChunk, ChatCompletion, ChatRequest } from "./schemas-chat.ts";

/** `POST /v1/chat/completions`. What the caller did wrong is thrown before the first chunk. */
export interface ChatCompletions {
  complete(body: ChatRequest, caller: GenerationCaller): Promise<ChatCompletion>;
  stream(body: ChatRequest, caller: GenerationCaller): AsyncGenerator<ChatChunk>;
}

export function createChatCompletions(deps: GenerationDeps): ChatCompletions {
  const open = (body: ChatRequest, caller: GenerationCaller): Promise<Job> =>
    openJob(deps, body, CHAT_NEUTRAL, caller, (held) => prepare(body, held, deps.randomSeed, caller));

  async function complete(body: ChatRequest, caller: GenerationCaller): Promise<ChatCompletion> {
    const job = await open(body, caller);
    try {
      const choices = Array.from({ length: job.spec.n }, (_, i) => emptyMessage(i, job));
      for await (const delta of chatDeltas(job)) addToMessage(choices[delta.index]!, delta);
      const { prompt_token_ids, prompt_logprobs } = choices[0]!;
      return {
        ...headOf(deps, body, job),
        object: "chat.completion",
        choices,
        usage: usageOf(job),
        ...(prompt_token_ids ? { prompt_token_ids } : {}),
        ...(prompt_logprobs ? { prompt_logprobs } : {}),
        ...provenanceOf(job),
      };
    } finally {
      job.held.release();
    }
  }

  async function* stream(body: ChatRequest, caller: GenerationCaller): AsyncGenerator<ChatChunk> {
    const job = await open(body, caller);
    try {
      const base = { ...headOf(deps, body, job), object: "chat.completion.chunk" as const };
      const withUsage = body.stream_options?.include_usage ?? false;
      yield* chunksOf(job, base, chatDeltas(job), { isSilent, withUsage });
    } finally {
      job.held.release();
    }
  }

  return { complete, stream };
}

async function prepare(
  body: ChatRequest,
  held: HeldModel,
  randomSeed: () => number,
  caller: GenerationCaller,
): Promise<Job> {
  const spec = resolveSpec(body, held, {
    maxTokens: maxTokensOf(body),
    logprobs: logprobsOf(body),
    echo: false,
    namesAsTokenIds: false,
    randomSeed,
  });
  const prompt = await encodeChat(held, toChatMessages(body.messages));
  checkContext(prompt, held.contextLength, spec.maxTokens ?? 1, "messages");
  const job = { held, prompts: [prompt], spec, caller, sampled: 0, cached: [] };
  checkSize(job, body.stream ?? false);
  return job;
}

function maxTokensOf({ max_tokens: older, max_completion_tokens: newer }: ChatRequest): number | null {
  if (typeof older === "number" && typeof newer === "number" && older !== newer) {
    throw fail("invalid_value", `max_tokens is ${older} and max_completion_tokens is ${newer}; give one of them`, {
      param: "max_tokens",
    });
  }
  return newer ?? older ?? null;
}

function logprobsOf({ logprobs, top_logprobs: top }: ChatRequest): number | null {
  if (logprobs) return top ?? 0;
  if (top === undefined || top === null || top === 0) return null;
  throw fail("invalid_value", "top_logprobs needs logprobs: true", { param: "top_logprobs" });
}
