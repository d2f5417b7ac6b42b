import { chatLogprob } from "./format-logprobs.ts";
import { type GenerationEvent, generate, type Job } from "./generate.ts";
import { formatPromptLogprobs } from "./prompt-logprobs.ts";
import type { ChatChoice, ChatChunkChoice } from "./schemas-chat.ts";

/** A generation in the form of `/v1/chat/completions`: each choice begins with its role and ends with `finish_reason`. */
export async function* chatDeltas(job: Job): AsyncGenerator<ChatChunkChoice> {
  const { spec } = job;
  for await (const event of generate(job)) {
    if (event.type === "token") yield tokenDelta(job, event);
    else if (event.type === "finish") yield* finishDeltas(event);
    else {
      const extension = await promptExtension(job, event);
      for (let index = 0; index < spec.n; index++) {
        yield { ...plainDelta(index, { role: "assistant", content: "" }), ...extension };
      }
    }
  }
}

function plainDelta(index: number, delta: ChatChunkChoice["delta"]): ChatChunkChoice {
  return { index, delta, logprobs: null, finish_reason: null, stop_reason: null };
}

async function promptExtension(
  { spec, held, prompts }: Job,
  { report }: Extract<GenerationEvent, { type: "prompt" }>,
): Promise<Partial<ChatChunkChoice>> {
  const { ids } = prompts[0]!;
  const { asked } = report;
  return {
    ...(asked ? { prompt_logprobs: await formatPromptLogprobs(held.text, ids, asked, spec) } : {}),
    ...(spec.returnTokenIds ? { prompt_token_ids: Array.from(ids), token_ids: [] } : {}),
  };
}

function tokenDelta(
  { spec, held }: Job,
  { choice, token, text }: Extract<GenerationEvent, { type: "token" }>,
): ChatChunkChoice {
  return {
    ...plainDelta(choice, { content: text }),
    logprobs: spec.logprobs === null ? null : { content: [chatLogprob(held.text, token)], refusal: null },
    ...(spec.returnTokenIds ? { token_ids: [token.id] } : {}),
  };
}

/** What was held back goes ahead of the last chunk, whose delta is empty. */
function* finishDeltas({ choice, text, reason, stopReason }: Extract<GenerationEvent, { type: "finish" }>) {
  if (text !== "") yield plainDelta(choice, { content: text });
  yield { ...plainDelta(choice, {}), finish_reason: reason, stop_reason: stopReason };
}

/** Nothing to tell: the text of the token is held back and nothing else was asked for. */
export function isSilent({ delta, logprobs, finish_reason, token_ids }: ChatChunkChoice): boolean {
  return delta.content === "" && delta.role === undefined && !logprobs && finish_reason === null && !token_ids;
}

/** A choice before its first delta. */
export function emptyMessage(index: number, { spec }: Job): ChatChoice {
  return {
    index,
    message: { role: "assistant", content: "", refusal: null },
    logprobs: spec.logprobs === null ? null : { content: [], refusal: null },
    finish_reason: "length",
    stop_reason: null,
    ...(spec.returnTokenIds ? { token_ids: [] } : {}),
  };
}

export function addToMessage(choice: ChatChoice, delta: ChatChunkChoice): void {
  choice.message.content += delta.delta.content ?? "";
  for (const entry of delta.logprobs?.content ?? []) choice.logprobs?.content.push(entry);
  if (delta.finish_reason !== null) choice.finish_reason = delta.finish_reason;
  if (delta.stop_reason !== null) choice.stop_reason = delta.stop_reason;
  for (const id of delta.token_ids ?? []) choice.token_ids?.push(id);
  if (delta.prompt_token_ids) choice.prompt_token_ids = delta.prompt_token_ids;
  if (delta.prompt_logprobs) choice.prompt_logprobs = delta.prompt_logprobs;
}
