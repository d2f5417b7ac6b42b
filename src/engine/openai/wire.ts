/**
 * What servers answer at `/v1/completions`, checked before it is believed. Field names as in vLLM 0.33
 * (entrypoints/openai/completion/protocol.py); where token ids stand elsewhere (llama.cpp), `idsFrom` says so.
 */
import { isObject, type JsonObject, show } from "../../model/json.ts";
import type { TopLogprobs } from "../engine.ts";
import { garbage } from "./failure.ts";
import { MOST_MASS } from "./temperature.ts";

/**
 * Where a server names the sampled ids: `token_ids` (vLLM, Preceptor), `logprobs.content[].id` (llama.cpp), or
 * `logprobs.tokens` as `token_id:N` (vLLM before `return_token_ids`).
 */
export type IdsFrom = "token_ids" | "content" | "tokens";

export interface WireBounds {
  vocabSize: number;
  /** Choices that were asked for. */
  n: number;
}

export interface WireToken {
  id: number;
  /** NaN: not reported. */
  logprob: number;
  /** Nats that every log-prob of this token may be wrong, where a Preceptor says that they are estimates; else 0. */
  bound: number;
  /** Most likely first. */
  top: TopLogprobs | null;
}

export interface WireChoice {
  index: number;
  tokens: WireToken[];
  finish: "stop" | "length" | null;
}

export interface WireUsage {
  promptTokens: number | null;
  cachedTokens: number;
}

/** One chunk of a stream, or a whole answer. */
export interface WireAnswer {
  choices: WireChoice[];
  usage: WireUsage | null;
  fingerprint: string | null;
}

/** Throws `RemoteFailure` ("garbage"). */
export function readAnswer(value: unknown, idsFrom: IdsFrom, bounds: WireBounds): WireAnswer {
  const { choices, usage, system_fingerprint: fingerprint } = object(value, "an answer");
  return {
    choices: list(choices, "choices").map((choice) => readChoice(object(choice, "a choice"), idsFrom, bounds)),
    usage: readUsage(usage),
    fingerprint: typeof fingerprint === "string" ? fingerprint : null,
  };
}

function readChoice(choice: JsonObject, idsFrom: IdsFrom, bounds: WireBounds): WireChoice {
  const { index, finish_reason: finish } = choice;
  if (!isIndex(index, bounds.n)) throw garbage(`answered choice ${show(index)} of ${bounds.n}`);
  return { index, tokens: readTokens(choice, idsFrom, bounds.vocabSize), finish: readFinish(finish) };
}

function readFinish(finish: unknown): WireChoice["finish"] {
  if (finish === null || finish === undefined || finish === "") return null;
  if (finish === "stop" || finish === "length") return finish;
  throw garbage(`ended a choice with ${show(finish)}`);
}

function readTokens(choice: JsonObject, idsFrom: IdsFrom, vocabSize: number): WireToken[] {
  const logprobs = isObject(choice.logprobs) ? choice.logprobs : null;
  if (idsFrom === "content") {
    return list(logprobs?.content ?? [], "logprobs.content").map((entry) => {
      const fields = object(entry, "a log-prob");
      const own: Pair = [readId(fields.id, vocabSize), readLogprob(fields.logprob)];
      return { id: own[0], logprob: own[1], bound: 0, top: readContentTop(fields.top_logprobs, own, vocabSize) };
    });
  }
  const ids =
    idsFrom === "tokens"
      ? list(logprobs?.tokens ?? [], "logprobs.tokens").map((token) => readNamedId(token, vocabSize))
      : list(choice.token_ids ?? [], "token_ids").map((id) => readId(id, vocabSize));
  if (!logprobs) return ids.map((id) => ({ id, logprob: Number.NaN, bound: 0, top: null }));
  const values = list(logprobs.token_logprobs, "token_logprobs");
  const tops = list(logprobs.top_logprobs ?? [], "top_logprobs");
  const bounds = list(logprobs.error_bound ?? [], "error_bound");
  if (values.length !== ids.length) throw garbage(`answered ${ids.length} tokens with ${values.length} log-probs`);
  if (bounds.length > 0 && bounds.length !== ids.length) {
    throw garbage(`answered ${ids.length} tokens with ${bounds.length} error bounds`);
  }
  return ids.map((id, i) => {
    const bound = readBound(bounds[i] ?? 0);
    const logprob = readLogprob(values[i], bound);
    return { id, logprob, bound, top: readNamedTop(tops[i], [id, logprob], { vocabSize, bound }) };
  });
}

/** By `token_id:N`; by the tokens' texts it tells nothing that is certain. */
function readNamedTop(
  value: unknown,
  own: Pair,
  { vocabSize, bound }: { vocabSize: number; bound: number },
): TopLogprobs | null {
  if (!isObject(value)) return null;
  const entries = Object.entries(value);
  if (entries.length === 0 || !entries.every(([name]) => name.startsWith(TOKEN_ID))) return null;
  return distribution(
    entries.map(([name, logprob]) => [readNamedId(name, vocabSize), readLogprob(logprob, bound)]),
    own,
    bound,
  );
}

function readContentTop(value: unknown, own: Pair, vocabSize: number): TopLogprobs | null {
  if (!Array.isArray(value) || value.length === 0) return null;
  return distribution(
    value.map((entry) => {
      const { id, logprob } = object(entry, "an alternative");
      return [readId(id, vocabSize), readLogprob(logprob)];
    }),
    own,
  );
}

const TOKEN_ID = "token_id:";

function readNamedId(name: unknown, vocabSize: number): number {
  const digits = typeof name === "string" && name.startsWith(TOKEN_ID) ? name.slice(TOKEN_ID.length) : "";
  return readDigits(digits, name, vocabSize);
}

/** One id has one name: no signs, spaces, exponents or zeros in front. */
function readDigits(digits: string, name: unknown, vocabSize: number): number {
  if (!/^(0|[1-9]\d{0,9})$/.test(digits)) throw garbage(`named a token ${show(name)}`);
  return readId(Number(digits), vocabSize);
}

type Pair = [id: number, logprob: number];

/**
 * What was reported of one distribution, most likely first. What is missing from 1 bounds all other ids, so an id that comes
 * twice, or more than the whole, would make an estimate look better than it is. `own`: the token, which need not be among them.
 * `bound`: nats that each may be wrong.
 */
function distribution(entries: Pair[], own: Pair, bound = 0): TopLogprobs {
  const seen = new Set<number>();
  let mass = entries.some(([id]) => id === own[0]) ? 0 : Math.exp(own[1]);
  for (const [id, logprob] of entries) {
    if (seen.has(id)) throw garbage(`answered token ${id} twice among the alternatives to one token`);
    seen.add(id);
    mass += Math.exp(logprob);
  }
  if (mass > MOST_MASS * Math.exp(bound))
    throw garbage(`answered alternatives to one token whose probabilities sum to ${mass.toFixed(2)}`);
  entries.sort(([, a], [, b]) => b - a);
  return {
    ids: Int32Array.from(entries, ([id]) => id),
    logprobs: Float32Array.from(entries, ([, logprob]) => logprob),
  };
}

function readUsage(value: unknown): WireUsage | null {
  if (!isObject(value)) return null;
  const { prompt_tokens: promptTokens, prompt_tokens_details: details } = value;
  const cached = isObject(details) ? details.cached_tokens : undefined;
  return { promptTokens: isCount(promptTokens) ? promptTokens : null, cachedTokens: isCount(cached) ? cached : 0 };
}

/** Log-probs of one prompt position, as `prompt_logprobs` gives them. */
export interface WirePosition {
  logprob: number;
  rank: number | null;
  /** Everything that was reported, most likely first; the prompt's own id is among them. */
  ids: Int32Array;
  logprobs: Float32Array;
}

/**
 * `prompt_logprobs` of a whole answer's only choice: entries from…to−1 speak of the prompt's tokens there. Throws
 * `RemoteFailure` ("garbage"), which is also what a server without them answers: nothing.
 */
export function readPromptLogprobs(
  value: unknown,
  { ids, from, to, vocabSize }: { ids: Int32Array; from: number; to: number; vocabSize: number },
): WirePosition[] {
  const [choice] = list(object(value, "an answer").choices, "choices");
  const { prompt_logprobs: reported } = object(choice, "a choice");
  if (reported === null || reported === undefined) throw garbage("answered no prompt_logprobs");
  const entries = list(reported, "prompt_logprobs");
  if (entries.length !== ids.length) {
    throw garbage(`answered log-probs for ${entries.length} of the prompt's ${ids.length} tokens`);
  }
  return Array.from({ length: to - from }, (_, row) => readPosition(entries[from + row], ids[from + row]!, vocabSize));
}

function readPosition(value: unknown, own: number, vocabSize: number): WirePosition {
  const found: Pair[] = [];
  let logprob = Number.NaN;
  let rank: number | null = null;
  for (const [name, entry] of Object.entries(object(value, "a prompt position"))) {
    const id = readDigits(name, name, vocabSize);
    const fields = object(entry, "a prompt log-prob");
    found.push([id, readLogprob(fields.logprob)]);
    if (id !== own) continue;
    logprob = found.at(-1)![1];
    rank = isCount(fields.rank) && fields.rank > 0 ? fields.rank : null;
  }
  if (Number.isNaN(logprob)) throw garbage(`answered no log-prob of the prompt's own token ${own}`);
  return { logprob, rank, ...distribution(found, [own, logprob]) };
}

function readLogprob(value: unknown, bound = 0): number {
  if (typeof value === "number" && value <= Math.log(MOST_MASS) + bound) return value;
  throw garbage(`answered a log-prob of ${show(value)}`);
}

function readBound(value: unknown): number {
  if (typeof value === "number" && value >= 0 && value < Infinity) return value;
  throw garbage(`answered an error bound of ${show(value)}`);
}

function readId(value: unknown, vocabSize: number): number {
  if (isIndex(value, vocabSize)) return value;
  throw garbage(`answered token ${show(value)}; the vocabulary has ${vocabSize}`);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isIndex(value: unknown, length: number): value is number {
  return isCount(value) && value < length;
}

export function object(value: unknown, what: string): JsonObject {
  if (isObject(value)) return value;
  throw garbage(`answered ${show(value)} for ${what}`);
}

export function list(value: unknown, what: string): readonly unknown[] {
  if (Array.isArray(value)) return value as readonly unknown[];
  throw garbage(`answered ${show(value)} for ${what}`);
}
