import { setMaxListeners } from "node:events";
import type { Caller, QueuePlace } from "../../caller.ts";
import type { SampleRequest, TopLogprobs } from "../../engine/engine.ts";
import { fail } from "../../errors.ts";
import type { HeldModel } from "../models/registry.ts";
import { type ChoiceText, createChoiceText } from "./choice-text.ts";
import { PARALLEL_CHOICES } from "./limits.ts";
import { mergeStreams } from "./merge-streams.ts";
import { type PromptScores, type ScoreOptions, scorePrompt } from "./prompt-logprobs.ts";
import type { EncodedPrompt } from "./prompts.ts";
import type { Spec } from "./sampling.ts";
import type { SamplingEcho, Usage } from "./schemas-sampling.ts";

/** Who asks, and who is told where prompts stand that wait in the engine. */
export interface GenerationCaller extends Caller {
  queued?(place: QueuePlace): void;
}

/** A request ready to run: the model is held, the prompts are tokenised, every limit is checked. */
export interface Job {
  held: HeldModel;
  prompts: readonly EncodedPrompt[];
  spec: Spec;
  caller: GenerationCaller;
  /** Tokens sampled so far, all choices together. */
  sampled: number;
  /** By prompt: how many of its tokens the prefix cache had when the engine first saw it. */
  cached: (number | undefined)[];
}

export interface SampledToken {
  id: number;
  /** Nats, of the model's own distribution (temperature 1). */
  logprob: number;
  top: TopLogprobs | undefined;
  /** Nats: the log-probs are estimates, wrong by at most so much. Undefined: they are exact. */
  errorBound: number | undefined;
}

export interface PromptReport {
  /** For `prompt_logprobs`, at its temperature. */
  asked: PromptScores | null;
  /** For `echo` with `logprobs`, at temperature 1. */
  echoed: PromptScores | null;
}

/** Choice c belongs to prompt floor(c / n). */
export type GenerationEvent =
  | { type: "prompt"; prompt: number; report: PromptReport }
  | { type: "token"; choice: number; token: SampledToken; text: string }
  | { type: "finish"; choice: number; text: string; reason: "stop" | "length"; stopReason: string | number | null };

/**
 * Runs the prompts side by side (the engine shares its slots) and yields what happens as it happens: for each prompt its
 * scores first, then its choices' tokens. Leaving the loop, an error or the caller's signal ends all of them.
 */
export async function* generate(job: Job): AsyncGenerator<GenerationEvent> {
  const { signal } = job.caller;
  const controller = new AbortController();
  const both = AbortSignal.any([signal, controller.signal]);
  // One listener per prompt is no leak.
  setMaxListeners(0, both);
  try {
    const streams = job.prompts.map((prompt, index) => runPrompt(job, prompt, index, both));
    yield* mergeStreams(streams, Math.ceil(PARALLEL_CHOICES / job.spec.n));
    if (signal.aborted) throw cancelled();
  } catch (error) {
    throw signal.aborted ? cancelled() : error;
  } finally {
    controller.abort();
  }
}

/** Nothing is yielded before the engine has taken the prompt: until then a refusal is an answer with its own status. */
async function* runPrompt(
  job: Job,
  prompt: EncodedPrompt,
  index: number,
  signal: AbortSignal,
): AsyncGenerator<GenerationEvent> {
  const report = await reportPrompt(job, prompt, index, signal);
  const choices = roomFor(job, prompt) > 0 ? sampleChoices(job, prompt, index, signal) : emptyChoices(job, index);
  let begun = false;
  for await (const event of choices) {
    if (!begun) yield { type: "prompt", prompt: index, report };
    begun = true;
    yield event;
  }
}

async function* emptyChoices({ spec: { n } }: Job, index: number): AsyncGenerator<GenerationEvent> {
  for (let i = 0; i < n; i++) {
    yield { type: "finish", choice: index * n + i, text: "", reason: "length", stopReason: null };
  }
}

/** Tokens that may follow a prompt. */
function roomFor({ spec, held }: Job, prompt: EncodedPrompt): number {
  const room = held.contextLength - prompt.ids.length;
  return Math.min(spec.maxTokens ?? room, room);
}

async function reportPrompt(
  { held, spec, caller, cached }: Job,
  { ids }: EncodedPrompt,
  index: number,
  signal: AbortSignal,
): Promise<PromptReport> {
  const echoK = spec.echo ? spec.logprobs : null;
  const { promptLogprobs: askedK, promptFrom: from, promptTemperature: temperature } = spec;
  const score = async (wanted: Omit<ScoreOptions, keyof Caller>): Promise<PromptScores> => {
    const scored = await scorePrompt(held, ids, { ...wanted, ...caller, signal });
    cached[index] ??= scored.cachedTokens;
    return scored;
  };
  // One pass serves both where both are at temperature 1; whole distributions are another computation.
  if (echoK !== null && typeof askedK === "number" && temperature === 1) {
    const both = await score({ k: Math.max(echoK, askedK), from: 1, temperature });
    return { asked: both, echoed: both };
  }
  return {
    asked: askedK === null ? null : await score({ k: askedK, from, temperature }),
    echoed: echoK === null ? null : await score({ k: echoK, from: 1, temperature: 1 }),
  };
}

async function* sampleChoices(
  job: Job,
  prompt: EncodedPrompt,
  index: number,
  signal: AbortSignal,
): AsyncGenerator<GenerationEvent> {
  const { held, spec, caller } = job;
  const maxTokens = roomFor(job, prompt);
  // Then the engine has seen the prompt before, and what its cache has of it now is no news.
  const scored = job.cached[index] !== undefined;
  const texts = Array.from({ length: spec.n }, () => createChoiceText(held.text, spec.rules));
  const request: SampleRequest = {
    promptIds: prompt.ids,
    n: spec.n,
    // top_p 0 means what the smallest top_p means: the most likely token alone.
    params: { temperature: spec.temperature, topP: spec.topP || Number.EPSILON, topK: spec.topK, maxTokens },
    seed: spec.seed,
    stopIds: [...spec.rules.stopIds],
    topLogprobs: spec.logprobs ?? 0,
    logprobsTemperature: 1,
    logprobs: spec.logprobs !== null,
    adapter: held.adapter,
    client: caller.client,
    priority: caller.priority,
    signal,
  };
  if (spec.rules.stops.length > 0) {
    request.shouldStop = stopWatcher(job);
    request.stopTexts = spec.rules.stops;
  }
  for await (const event of held.engine.sample(request)) {
    if (event.type === "queued") {
      caller.queued?.({ position: event.position, reason: event.reason });
      continue;
    }
    if (event.type === "prompt" || event.type === "usage") {
      if (!scored) job.cached[index] = event.cachedTokens;
      continue;
    }
    const text = texts[event.index] as ChoiceText;
    const choice = index * spec.n + event.index;
    if (event.type === "token") {
      job.sampled++;
      const { id, logprob, top, errorBound } = event;
      const token = { id, logprob, top, errorBound };
      yield { type: "token", choice, token, text: text.push(id).text };
    } else if (event.reason === "cancelled") {
      throw cancelled();
    } else {
      yield { type: "finish", choice, text: text.flush(), reason: event.reason, stopReason: text.stopReason() };
    }
  }
}

/** Follows each sequence ahead of the reader and says when a stop string is complete. */
function stopWatcher({ held, spec }: Job): (index: number, ids: readonly number[]) => boolean {
  const watched = Array.from({ length: spec.n }, () => ({
    text: createChoiceText(held.text, spec.rules),
    seen: 0,
    stopped: false,
  }));
  return (index, ids) => {
    const state = watched[index];
    if (!state) return false;
    while (!state.stopped && state.seen < ids.length) state.stopped = state.text.push(ids[state.seen++]!).stopped;
    return state.stopped;
  };
}

export function usageOf({ prompts, sampled, cached }: Job): Usage {
  const promptTokens = prompts.reduce((sum, prompt) => sum + prompt.ids.length, 0);
  return {
    prompt_tokens: promptTokens,
    completion_tokens: sampled,
    total_tokens: promptTokens + sampled,
    prompt_tokens_details: { cached_tokens: cached.reduce<number>((sum, tokens) => sum + (tokens ?? 0), 0) },
  };
}

/** The parameters that made an answer, and its seed. */
export function provenanceOf(job: Job): { seed: number; sampling: SamplingEcho } {
  const { spec } = job;
  const sampling: SamplingEcho = {
    temperature: spec.temperature,
    top_p: spec.topP,
    top_k: spec.topK,
    max_tokens: spec.maxTokens ?? Math.max(...job.prompts.map((prompt) => roomFor(job, prompt))),
    seed: spec.seed,
    logprobs_temperature: 1,
    ...(spec.promptLogprobs === null ? {} : { prompt_logprobs_temperature: spec.promptTemperature }),
  };
  return { seed: spec.seed, sampling };
}

function cancelled(): Error {
  return fail("cancelled", "the request was cancelled before it was complete");
}
