import { setImmediate as yieldToOthers } from "node:timers/promises";
import type { Caller } from "../../caller.ts";
import type { LogprobsResult } from "../../engine/engine.ts";
import { fail } from "../../errors.ts";
import type { TextModel } from "../../text/text.ts";
import type { HeldModel } from "../models/registry.ts";
import { LOWEST_LOGPROB } from "./limits.ts";
import { tokenText } from "./token-text.ts";

/** Log-probs of a prompt's own tokens: row j speaks of token j + 1. */
export interface PromptScores {
  /** (P − 1) */
  logprobs: Float32Array;
  /** (P − 1), 1 = the most likely id */
  rank: Int32Array;
  /** Alternatives per row. */
  k: number;
  /** (P − 1, k), most likely first */
  topIds: Int32Array;
  /** (P − 1, k) */
  topLogprobs: Float32Array;
  /** Of the prompt's tokens, how many the prefix cache had. */
  cachedTokens: number;
}

/** vLLM's form: null for the first token, then by id. The prompt's own token is always among them. */
export type PromptLogprobs = (Record<string, { logprob: number; rank: number; decoded_token: string }> | null)[];

/** Rows built between two turns of the event loop, so that other requests are served meanwhile (about 1 ms). */
const ROWS_PER_TURN = 256;

export interface ScoreOptions extends Caller {
  k: number;
  temperature: number;
}

/** Scores a prompt under the model. Throws `unsupported_by_backend` where the engine cannot. */
export async function scorePrompt(
  held: HeldModel,
  ids: Int32Array,
  { k, temperature, client, priority, signal }: ScoreOptions,
): Promise<PromptScores> {
  const { logprobs, topk, temperature_scoring: scaling } = held.engine.capabilities;
  if (!logprobs || (k > 0 && !topk) || (temperature !== 1 && !scaling)) {
    const what = !logprobs ? "log-probs of prompts" : k > 0 && !topk ? "top-k log-probs" : "log-probs at a temperature";
    throw fail("unsupported_by_backend", `the engine of ${held.id} cannot report ${what}`, {
      param: "prompt_logprobs",
    });
  }
  if (ids.length < 2) return pickScores(undefined, k);
  const { adapter } = held;
  const request = { sequences: [{ ids }], temperature, rank: true, adapter, client, priority, signal };
  const results = await held.engine.logprobs(k > 0 ? { ...request, topK: k } : request);
  return pickScores(results[0], k);
}

function pickScores(result: LogprobsResult | undefined, k: number): PromptScores {
  return {
    logprobs: result?.logprobs ?? new Float32Array(),
    rank: result?.rank ?? new Int32Array(),
    k,
    topIds: result?.topIds ?? new Int32Array(),
    topLogprobs: result?.topLogprobs ?? new Float32Array(),
    cachedTokens: result?.cachedTokens ?? 0,
  };
}

/** `limit`: alternatives to show, at most the k that was scored. */
export async function formatPromptLogprobs(
  text: TextModel,
  ids: Int32Array,
  scores: PromptScores,
  limit: number,
): Promise<PromptLogprobs> {
  const out: PromptLogprobs = [null];
  for (let j = 0; j + 1 < ids.length; j++) {
    const own = ids[j + 1]!;
    const entry: NonNullable<PromptLogprobs[number]> = {};
    for (let i = 0; i < Math.min(limit, scores.k); i++) {
      const id = scores.topIds[j * scores.k + i]!;
      const logprob = finiteLogprob(scores.topLogprobs[j * scores.k + i]!);
      entry[id] = { logprob, rank: i + 1, decoded_token: tokenText(text, id) };
    }
    entry[own] = {
      logprob: finiteLogprob(scores.logprobs[j]!),
      rank: scores.rank[j]!,
      decoded_token: tokenText(text, own),
    };
    out.push(entry);
    if (out.length % ROWS_PER_TURN === 0) await yieldToOthers();
  }
  return out;
}

export function finiteLogprob(logprob: number): number {
  return logprob > LOWEST_LOGPROB ? logprob : LOWEST_LOGPROB;
}
