import { type ErrorDetails, fail } from "../errors.ts";
import type { DistributionsRequest, LogprobsRequest, LogprobsSequence, SampleRequest } from "./engine.ts";

/** Requests are checked on the caller's thread: bad input never reaches the graphs. */

export interface Bounds {
  vocabSize: number;
  contextLength: number;
}

/** Continuations of one prompt; sixteen groups of the paper's size. More is better sent as several requests. */
const MAX_SAMPLES = 1024;
/** Alternatives reported per token: 1,024 of a context of 32 k tokens already are 256 MB. */
const MAX_ALTERNATIVES = 1024;
/** Below it a division would overflow single precision for ordinary logits; 0 asks for greedy. */
const LEAST_TEMPERATURE = 1e-3;

export function checkSample(request: SampleRequest, bounds: Bounds): void {
  const { promptIds, n, params, seed } = request;
  checkIds(promptIds, bounds.vocabSize, "prompt");
  if (promptIds.length === 0) throw fail("invalid_value", "the prompt is empty; it needs at least one token");
  if (promptIds.length >= bounds.contextLength) {
    throw fail(
      "context_length_exceeded",
      `the prompt has ${promptIds.length} tokens and this model's context is ${bounds.contextLength}; shorten it so that at least one token fits behind it`,
    );
  }
  checkCount("n", n, 1, MAX_SAMPLES);
  checkCount("max_tokens", params.maxTokens, 0);
  checkCount("top_k", params.topK, 0);
  checkCount("seed", seed, 0);
  if (params.temperature !== 0) checkTemperature("temperature", params.temperature);
  if (!(params.topP > 0 && params.topP <= 1)) throw invalid("top_p", params.topP, "it must lie in (0, 1]");
  checkCount("logprobs", request.topLogprobs ?? 0, 0, Math.min(MAX_ALTERNATIVES, bounds.vocabSize));
  if (request.logprobsTemperature !== undefined) checkTemperature("temperature", request.logprobsTemperature);
}

export function checkLogprobs(request: LogprobsRequest, bounds: Bounds): void {
  checkTemperature("temperature", request.temperature);
  checkCount("top_k", request.topK ?? 0, 0, Math.min(MAX_ALTERNATIVES, bounds.vocabSize));
  for (const sequence of request.sequences) checkSequence(sequence, bounds);
}

export function checkDistributions(request: DistributionsRequest, bounds: Bounds): void {
  checkTemperature("temperature", request.temperature);
  checkSequence(request, bounds);
}

function checkSequence(sequence: LogprobsSequence, bounds: Bounds): void {
  const { ids, at, atWidth = 0 } = sequence;
  if (ids.length === 0) throw fail("invalid_value", "a sequence is empty; it needs at least one token");
  checkIds(ids, bounds.vocabSize, "sequence");
  if (ids.length > bounds.contextLength) {
    throw fail(
      "context_length_exceeded",
      `the sequence has ${ids.length} tokens and this model's context is ${bounds.contextLength}`,
    );
  }
  const { from, to } = range(sequence);
  const whole = Number.isInteger(from) && Number.isInteger(to);
  if (!whole || from < 1 || to < from || to > ids.length) {
    throw fail(
      "invalid_value",
      `tokens ${from} to ${to} are no range of a sequence of ${ids.length}; it begins at 1 or later and ends at ${ids.length} or earlier`,
    );
  }
  if (!at) return;
  if (!Number.isInteger(atWidth) || atWidth < 1 || at.length !== (to - from) * atWidth) {
    throw fail("invalid_value", `"at" holds ${at.length} ids; ${to - from} positions of ${atWidth} were announced`);
  }
  checkIds(at, bounds.vocabSize, "list of ids to report");
}

/** Tokens whose log-probs are wanted. A sequence of one token has none. */
export function range({ ids, from, to }: LogprobsSequence): { from: number; to: number } {
  return { from: from ?? 1, to: to ?? ids.length };
}

function checkIds(ids: Int32Array, vocabSize: number, what: string): void {
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i]!;
    if (id >= 0 && id < vocabSize) continue;
    throw fail("invalid_token_ids", `token ${i} of the ${what} is ${id}; this model has ids 0 to ${vocabSize - 1}`);
  }
}

function checkCount(param: string, value: number, least: number, most = Number.MAX_SAFE_INTEGER): void {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return;
  const range = most === Number.MAX_SAFE_INTEGER ? `${least} or more` : `between ${least} and ${most}`;
  throw invalid(param, value, `it must be a whole number, ${range}`);
}

function checkTemperature(param: string, value: number): void {
  if (Number.isFinite(value) && value >= LEAST_TEMPERATURE) return;
  throw invalid(param, value, `it must be at least ${LEAST_TEMPERATURE}`);
}

function invalid(param: string, value: unknown, rule: string): Error {
  return fail("invalid_value", `${param} is ${value}; ${rule}`, { param } satisfies ErrorDetails);
}
