/** Drawing from the current weights of a session. */
import type { Caller } from "../../../caller.ts";
import type { SampleEvent, SampleRequest } from "../../../engine/engine.ts";
import { fail } from "../../../errors.ts";
import { DEFAULT_MAX_TOKENS } from "../../explanations/schemas.ts";
import { MAX_CHARS_PER_TOKEN } from "../../openai/limits.ts";
import type { OpenSession } from "./resource.ts";
import type { SampleBody, SampleResult } from "./schemas.ts";
import { checkTokens } from "./sequences.ts";

export async function sampleFrom(
  entry: OpenSession,
  body: SampleBody,
  caller: Caller,
  randomSeed: () => number,
): Promise<SampleResult> {
  const { session, facts } = entry;
  const promptIds = await promptOf(entry, body.prompt);
  const room = session.contextLength - promptIds.length;
  if (room < 1) throw tooLong(promptIds.length, session.contextLength);
  const stop = body.stop ?? [...facts.base.eosIds];
  const sampling: SampleResult["sampling"] = {
    temperature: body.temperature,
    top_p: body.top_p,
    top_k: body.top_k,
    max_tokens: Math.min(body.max_tokens ?? DEFAULT_MAX_TOKENS, room),
    seed: body.seed ?? randomSeed(),
    stop,
    logprobs_temperature: body.temperature === 0 ? 1 : body.temperature,
  };
  const request: Omit<SampleRequest, "adapter"> = {
    promptIds,
    n: body.n,
    params: {
      temperature: sampling.temperature,
      topP: sampling.top_p,
      topK: sampling.top_k,
      maxTokens: sampling.max_tokens,
    },
    seed: sampling.seed,
    stopIds: stop,
    ...caller,
  };
  const { choices: drawn, cachedTokens } = await collect(session.sample(request), body.n);
  const { text } = facts.base;
  const choices = await Promise.all(
    drawn.map(async (choice) => ({ ...choice, text: await text.decode(Int32Array.from(choice.tokens)) })),
  );
  return {
    prompt_tokens: [...promptIds],
    choices,
    sampling,
    usage: {
      prompt_tokens: promptIds.length,
      completion_tokens: choices.reduce((sum, { tokens }) => sum + tokens.length, 0),
      cached_tokens: cachedTokens,
    },
  };
}

async function promptOf({ facts, session }: OpenSession, prompt: SampleBody["prompt"]): Promise<Int32Array> {
  if (typeof prompt !== "string") return checkTokens(prompt, "prompt", session);
  // No tokenizer is asked about a text that cannot fit.
  const { contextLength } = session;
  if (prompt.length > contextLength * MAX_CHARS_PER_TOKEN)
    throw tooLong(prompt.length / MAX_CHARS_PER_TOKEN, contextLength);
  const { ids } = await facts.base.text.encode(prompt, { parseSpecial: true, addSpecial: true });
  if (ids.length === 0)
    throw fail("invalid_value", "the prompt is empty; give at least one character", { param: "prompt" });
  return ids;
}

function tooLong(tokens: number, contextLength: number): Error {
  return fail(
    "context_length_exceeded",
    `the prompt has ${Math.floor(tokens)} tokens or more and this session's context is ${contextLength}; at least one token must fit behind it`,
    { param: "prompt" },
  );
}

async function collect(
  events: AsyncIterable<SampleEvent>,
  n: number,
): Promise<{ choices: Omit<SampleResult["choices"][number], "text">[]; cachedTokens: number }> {
  const choices = Array.from({ length: n }, (_, index) => ({
    index,
    tokens: [] as number[],
    logprobs: [] as number[],
    finish_reason: "length" as "stop" | "length",
  }));
  let cachedTokens = 0;
  for await (const event of events) {
    if (event.type === "prompt" || event.type === "usage") cachedTokens = event.cachedTokens;
    if (event.type === "token") {
      choices[event.index]!.tokens.push(event.id);
      choices[event.index]!.logprobs.push(event.logprob);
    }
    if (event.type !== "finish") continue;
    if (event.reason === "cancelled") throw fail("cancelled", "the request was cancelled");
    choices[event.index]!.finish_reason = event.reason;
  }
  return { choices, cachedTokens };
}
