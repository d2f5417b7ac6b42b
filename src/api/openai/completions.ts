import type { HeldModel } from "../models/registry.ts";
import { addToChoice, completionDeltas, emptyChoice, isSilent } from "./completion-chunks.ts";
import { type GenerationCaller, type Job, provenanceOf, usageOf } from "./generate.ts";
import { COMPLETION_NEUTRAL } from "./neutral-fields.ts";
import { chunksOf, type GenerationDeps, headOf, openJob } from "./open-job.ts";
import { checkContext, type EncodedPrompt, encodeRawPrompt, splitPrompts } from "./prompts.ts";
import { checkSize, resolveSpec } from "./sampling.ts";
import type { Completion, CompletionChunk, CompletionRequest } from "./schemas-completions.ts";

/** OpenAI's default. */
const DEFAULT_MAX_TOKENS = 16;

/** `POST /v1/completions`. What the caller did wrong is thrown before the first chunk. */
export interface Completions {
  complete(body: CompletionRequest, caller: GenerationCaller): Promise<Completion>;
  stream(body: CompletionRequest, caller: GenerationCaller): AsyncGenerator<CompletionChunk>;
}

export function createCompletions(deps: GenerationDeps): Completions {
  const open = (body: CompletionRequest, caller: GenerationCaller): Promise<Job> =>
    openJob(deps, body, COMPLETION_NEUTRAL, caller, (held) => prepare(body, held, deps.randomSeed, caller));

  const head = (body: CompletionRequest, job: Job) => ({
    ...headOf(deps, body, job),
    object: "text_completion" as const,
  });

  async function complete(body: CompletionRequest, caller: GenerationCaller): Promise<Completion> {
    const job = await open(body, caller);
    try {
      const choices = Array.from({ length: job.prompts.length * job.spec.n }, (_, i) => emptyChoice(i, job));
      for await (const delta of completionDeltas(job)) addToChoice(choices[delta.index]!, delta);
      return { ...head(body, job), choices, usage: usageOf(job), ...provenanceOf(job) };
    } finally {
      job.held.release();
    }
  }

  async function* stream(body: CompletionRequest, caller: GenerationCaller): AsyncGenerator<CompletionChunk> {
    const job = await open(body, caller);
    try {
      const base = head(body, job);
      const withUsage = body.stream_options?.include_usage ?? false;
      yield* chunksOf(job, base, completionDeltas(job), { isSilent, withUsage });
    } finally {
      job.held.release();
    }
  }

  return { complete, stream };
}

async function prepare(
  body: CompletionRequest,
  held: HeldModel,
  randomSeed: () => number,
  caller: GenerationCaller,
): Promise<Job> {
  const { signal } = caller;
  const spec = resolveSpec(body, held, {
    maxTokens: body.max_tokens ?? DEFAULT_MAX_TOKENS,
    logprobs: body.logprobs ?? null,
    echo: body.echo ?? false,
    namesAsTokenIds: body.return_tokens_as_token_ids ?? false,
    randomSeed,
  });
  const prompts: EncodedPrompt[] = [];
  const addSpecial = body.add_special_tokens ?? true;
  for (const prompt of splitPrompts(body.prompt)) {
    const encoded = await encodeRawPrompt(held, prompt, { addSpecial, echo: spec.echo, signal });
    checkContext(encoded, held.contextLength, spec.maxTokens ?? 1, prompt.param);
    prompts.push(encoded);
  }
  const job = { held, prompts, spec, caller, sampled: 0, cached: [] };
  checkSize(job, body.stream ?? false);
  return job;
}
