import {
  appendCompletionLogprobs,
  type CompletionLogprobsBuilder,
  createCompletionLogprobs,
  emptyCompletionLogprobs,
} from "./format-logprobs.ts";
import { type GenerationEvent, generate, type Job, type PromptReport } from "./generate.ts";
import { formatPromptLogprobs } from "./prompt-logprobs.ts";
import type { EncodedPrompt } from "./prompts.ts";
import type { CompletionChoice, CompletionChunk } from "./schemas-completions.ts";

/** What one event adds to a choice of a completion. */
export type CompletionDelta = CompletionChunk["choices"][number];

/** A generation in the form of `/v1/completions`, piece by piece; every piece but the last has `finish_reason` null. */
export async function* completionDeltas(job: Job): AsyncGenerator<CompletionDelta> {
  const { spec, held, prompts } = job;
  const builders = Array.from({ length: prompts.length * spec.n }, () =>
    createCompletionLogprobs(held.text, { skipSpecial: spec.rules.skipSpecial, asTokenIds: spec.namesAsTokenIds }),
  );
  for await (const event of generate(job)) {
    if (event.type !== "prompt") {
      yield choiceDelta(job, event, builders[event.choice]!);
      continue;
    }
    for (let i = 0; i < spec.n; i++) {
      const index = event.prompt * spec.n + i;
      const delta = await promptDelta(job, prompts[event.prompt]!, event.report, builders[index]!);
      if (delta) yield { index, ...delta };
    }
  }
}

/** What the answer says of the prompt; null when it says nothing. */
async function promptDelta(
  { spec, held }: Job,
  prompt: EncodedPrompt,
  { asked, echoed }: PromptReport,
  builder: CompletionLogprobsBuilder,
): Promise<Omit<CompletionDelta, "index"> | null> {
  if (!spec.echo && !asked && !spec.returnTokenIds) return null;
  return {
    text: spec.echo ? prompt.text : "",
    logprobs: echoed ? await builder.prompt(prompt.ids, echoed, spec.logprobs ?? 0) : null,
    finish_reason: null,
    stop_reason: null,
    ...(asked ? { prompt_logprobs: await formatPromptLogprobs(held.text, prompt.ids, asked, spec) } : {}),
    ...(spec.returnTokenIds ? { prompt_token_ids: Array.from(prompt.ids), token_ids: [] } : {}),
  };
}

function choiceDelta(
  { spec }: Job,
  event: Exclude<GenerationEvent, { type: "prompt" }>,
  builder: CompletionLogprobsBuilder,
): CompletionDelta {
  const { choice: index, text } = event;
  if (event.type === "finish") {
    return { index, text, logprobs: null, finish_reason: event.reason, stop_reason: event.stopReason };
  }
  const { token } = event;
  const shown = spec.rules.includeStop || !spec.rules.stopIds.has(token.id);
  return {
    index,
    text,
    logprobs: spec.logprobs === null ? null : builder.sampled(token, shown),
    finish_reason: null,
    stop_reason: null,
    ...(spec.returnTokenIds ? { token_ids: [token.id] } : {}),
  };
}

/** Nothing to tell: the text of the token is held back and nothing else was asked for. */
export function isSilent({ text, logprobs, finish_reason, token_ids, prompt_logprobs }: CompletionDelta): boolean {
  return text === "" && !logprobs && finish_reason === null && !token_ids && !prompt_logprobs;
}

/** A choice before its first delta. */
export function emptyChoice(index: number, { spec }: Job): CompletionChoice {
  return {
    index,
    text: "",
    logprobs: spec.logprobs === null ? null : emptyCompletionLogprobs(),
    finish_reason: "length",
    stop_reason: null,
    ...(spec.returnTokenIds ? { token_ids: [] } : {}),
  };
}

export function addToChoice(choice: CompletionChoice, delta: CompletionDelta): void {
  choice.text += delta.text;
  if (delta.logprobs && choice.logprobs) appendCompletionLogprobs(choice.logprobs, delta.logprobs);
  if (delta.finish_reason !== null) choice.finish_reason = delta.finish_reason;
  if (delta.stop_reason !== null) choice.stop_reason = delta.stop_reason;
  for (const id of delta.token_ids ?? []) choice.token_ids?.push(id);
  if (delta.prompt_token_ids) choice.prompt_token_ids = delta.prompt_token_ids;
  if (delta.prompt_logprobs) choice.prompt_logprobs = delta.prompt_logprobs;
}
