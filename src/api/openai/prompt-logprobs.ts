import { setImmediate as yieldToOthers } from "node:timers/promises";
import type { Caller } from "../../caller.ts";
import type { LogprobsResult } from "../../engine/engine.ts";
import { fail } from "../../errors.ts";
import type { TextModel } from "../../text/text.ts";
import { lacking, type Needs } from "../models/needs.ts";
import type { HeldModel } from "../models/registry.ts";
import { LOWEST_LOGPROB } from "./limits.ts";
import { tokenText } from "./token-text.ts";
import { scoreWholeVocabulary } from "./whole-vocabulary.ts";

/** Alternatives per token: so many, or all ids of the vocabulary. */
export type Alternatives = number | "all";

/** Log-probs of a prompt's own tokens: row j speaks of token from + j. */
export interface PromptScores {
  /** First token scored, ≥ 1; at the prompt's length or beyond there are no rows. */
  from: number;
  /** (P − from) */
  logprobs: Float32Array;
  /** (P − from), 1 = the most likely id */
  rank: Int32Array;
  /** Alternatives per row. */
  k: number;
  /** (P − from, k), most likely first */
  topIds: Int32Array;
  /** (P − from, k) */
  topLogprobs: Float32Array;
  /** Of the prompt's tokens, how many the prefix cache had; undefined where the engine was not asked. */
  cachedTokens: number | undefined;
}

/** vLLM's form: null for the first token, then by id. The prompt's own token is always among them. */
export type PromptLogprobs = (Record<string, { logprob: number; rank: number; decoded_token: string }> | null)[];

/** Entries built between two turns of the event loop, so that other requests are served meanwhile (about 1 ms). */
const ENTRIES_PER_TURN = 1024;

export interface ScoreOptions extends Caller {
  k: Alternatives;
  from: number;
  temperature: number;
}

/** Scores a prompt under the model. Throws `unsupported_by_backend` where the engine cannot. */
export async function scorePrompt(held: HeldModel, ids: Int32Array, options: ScoreOptions): Promise<PromptScores> {
  const missing = lacking(held.engine.capabilities, promptNeeds(options));
  if (missing !== null) {
    throw fail("unsupported_by_backend", `${held.id} cannot ${missing}`, {
      param: "prompt_logprobs",
    });
  }
  const { k, from, temperature, client, priority, signal } = options;
  if (k === "all") return scoreWholeVocabulary(held, ids, options);
  if (from >= ids.length) return pickScores(undefined, from, k);
  const { adapter } = held;
  const request = {
    sequences: [{ ids, from }],
    temperature,
    rank: true,
    exact: true,
    adapter,
    client,
    priority,
    signal,
  };
  const results = await held.engine.logprobs(k > 0 ? { ...request, topK: k } : request);
  return pickScores(results[0], from, k);
}

/** What reporting a prompt's log-probs asks of a model; a whole vocabulary has every log-prob in it. */
export function promptNeeds({ k, temperature }: Pick<ScoreOptions, "k" | "temperature">): Needs {
  const whole = k === "all";
  return { logprobs: !whole, topk: !whole && k > 0, distributions: whole, exact_temperatures: [temperature] };
}

function pickScores(result: LogprobsResult | undefined, from: number, k: number): PromptScores {
  return {
    from,
    logprobs: result?.logprobs ?? new Float32Array(),
    rank: result?.rank ?? new Int32Array(),
    k,
    topIds: result?.topIds ?? new Int32Array(),
    topLogprobs: result?.topLogprobs ?? new Float32Array(),
    cachedTokens: result?.cachedTokens,
  };
}

/** What of the scores is shown: at most what was scored, since one pass may have served more than this. */
export interface ShownScores {
  promptLogprobs: Alternatives | null;
  promptFrom: number;
}

export async function formatPromptLogprobs(
  text: TextModel,
  ids: Int32Array,
  scores: PromptScores,
  { promptLogprobs, promptFrom }: ShownScores,
): Promise<PromptLogprobs> {
  const shown = promptLogprobs === "all" ? scores.k : Math.min(promptLogprobs ?? 0, scores.k);
  const out = new Array<PromptLogprobs[number]>(ids.length).fill(null);
  let written = 0;
  for (let position = promptFrom; position < ids.length; position++) {
    const j = position - scores.from;
    const entry: NonNullable<PromptLogprobs[number]> = {};
    const add = (id: number, logprob: number, rank: number): void => {
      entry[id] = { logprob: finiteLogprob(logprob), rank, decoded_token: tokenText(text, id) };
      written++;
    };
    for (let i = 0; i < shown; i++) {
      add(scores.topIds[j * scores.k + i]!, scores.topLogprobs[j * scores.k + i]!, i + 1);
      if (written % ENTRIES_PER_TURN === 0) await yieldToOthers();
    }
    add(ids[position]!, scores.logprobs[j]!, scores.rank[j]!);
    if (written % ENTRIES_PER_TURN === 0) await yieldToOthers();
    out[position] = entry;
  }
  return out;
}

export function finiteLogprob(logprob: number): number {
  return logprob > LOWEST_LOGPROB ? logprob : LOWEST_LOGPROB;
}
