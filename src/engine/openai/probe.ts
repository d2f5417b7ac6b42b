/** What a server can do, found out with a handful of requests of a few tokens each. */

import { fail } from "../../errors.ts";
import { isObject, show } from "../../model/json.ts";
import type { Capabilities, RemoteOptions } from "../engine.ts";
import type { Connection } from "./connection.ts";
import { garbage, mayAnswerLater, RemoteFailure } from "./failure.ts";
import { MAX_ALTERNATIVES, MAX_WHOLE_VOCABULARY, QUESTION_TIMEOUT_MS, SAME_WEIGHTS_NATS } from "./limits.ts";
import type { Profile } from "./profile.ts";
import { NO_OTHER_FILTERS } from "./sampling.ts";
import {
  type IdsFrom,
  list,
  object,
  readAnswer,
  readPromptLogprobs,
  type WirePosition,
  type WireToken,
} from "./wire.ts";

/** What `/models` says of the served model. */
export interface ModelCard {
  contextLength: number | null;
  vocabSize: number | null;
  /** Everything of it that stays the same while the server serves the same. */
  identity: string;
}

/** Throws `RemoteFailure`, also ("refused") where the server does not know the name. */
export async function readCard(connection: Connection, name: string, signal?: AbortSignal): Promise<ModelCard> {
  const { data } = object(await connection.get("/models", { signal }), "its models");
  const cards = list(data, "its models").filter(isObject);
  const card = cards.find(({ id, aliases }) => id === name || (Array.isArray(aliases) && aliases.includes(name)));
  if (!card) {
    const names = cards.slice(0, MAX_NAMED).map(({ id }) => show(id, MAX_NAME_CHARS));
    if (cards.length > MAX_NAMED) names.push(`${cards.length - MAX_NAMED} more`);
    throw new RemoteFailure("refused", `does not serve ${JSON.stringify(name)}, but ${names.join(", ") || "nothing"}`, {
      status: 404,
    });
  }
  const meta = isObject(card.meta) ? card.meta : {};
  const version = await readVersion(connection, signal);
  const { root, parent, max_model_len: length } = card;
  return {
    contextLength: positive(length) ?? positive(meta.n_ctx),
    vocabSize: positive(meta.n_vocab),
    identity: [root, parent, length, meta.n_ctx, meta.n_vocab, meta.size, version]
      .map((part) => show(part, MAX_IDENTITY_CHARS))
      .join(),
  };
}

/** Of the models that a server names instead of the one that was asked for: enough to find a misspelt name. */
const MAX_NAMED = 8;
const MAX_NAME_CHARS = 100;
/** Of each field that tells servers apart: paths and versions are shorter. */
const MAX_IDENTITY_CHARS = 1_000;

/** vLLM and Preceptor tell theirs; others need not. */
async function readVersion(connection: Connection, signal: AbortSignal | undefined): Promise<unknown> {
  return connection.get("/version", { signal, root: true }).catch(() => null);
}

function positive(value: unknown): number | null {
  return Number.isSafeInteger(value) && (value as number) > 0 ? (value as number) : null;
}

/** Throws `RemoteFailure` where the server does not answer, or knows neither the model nor `/completions`. */
export async function probe(connection: Connection, options: RemoteOptions, signal?: AbortSignal): Promise<Profile> {
  const card = await readCard(connection, options.name, signal);
  const ask = createAsk(connection, options, card.vocabSize ?? options.vocabSize, signal);
  const sampled = await probeSampling(ask);
  const prompts = await probePrompts(ask, options);
  const capabilities: Capabilities = {
    sample: sampled.idsFrom !== null,
    logprobs: prompts.plain !== null,
    exact_temperatures: prompts.plain === null ? [] : prompts.scales || prompts.wholeRows ? null : [options.tempered],
    topk: prompts.alternatives > 0,
    at_ids: prompts.wholeRows,
    distributions: prompts.wholeRows,
    adapters: await probeAdapters(connection, signal),
    train: false,
    batch_invariant: false,
  };
  return {
    capabilities,
    idsFrom: sampled.idsFrom,
    manyChoices: sampled.manyChoices,
    sampleAlternatives: sampled.alternatives,
    sampledLogprobs: await probeSampledLogprobs(ask, sampled, prompts),
    scalesPrompts: prompts.scales,
    wholeRows: prompts.wholeRows,
    alternatives: prompts.alternatives,
    scoresOnly: prompts.scoresOnly,
    vocabSize: ask.vocabSize,
    contextLength: card.contextLength,
    probe: prompts.plain && Float32Array.from(prompts.plain, ({ logprob }) => logprob),
    identity: card.identity,
  };
}

interface Ask {
  ids: Int32Array;
  vocabSize: number;
  /** A whole answer to the probe (or `ids`) with these fields. */
  whole(fields: object, ids?: Int32Array): Promise<unknown>;
  /** The same as a stream, event by event. */
  stream(fields: object): AsyncGenerator<unknown>;
}

function createAsk(
  connection: Connection,
  { name, probeIds }: RemoteOptions,
  vocabSize: number,
  signal?: AbortSignal,
): Ask {
  const body = (fields: object, ids = probeIds): object => ({
    model: name,
    prompt: Array.from(ids),
    max_tokens: 1,
    ...fields,
  });
  return {
    ids: probeIds,
    vocabSize,
    whole: (fields, ids) => connection.post("/completions", body(fields, ids), { signal, timeoutMs: PROBE_TIMEOUT_MS }),
    stream: (fields) =>
      connection.events(
        "/completions",
        { ...body(fields), stream: true },
        signal ?? new AbortController().signal,
        PROBE_TIMEOUT_MS,
      ),
  };
}

/** A server that has just been started may still be compiling its kernels for the first request. */
const PROBE_TIMEOUT_MS = 12 * QUESTION_TIMEOUT_MS;
/** Far from 1, so that scaled and plain log-probs cannot be mistaken for each other. */
const PROBE_TEMPERATURE = 0.5;
const PROBE_CHOICES = 2;
const PROBE_TOKENS = 2;

interface Sampled {
  idsFrom: IdsFrom | null;
  manyChoices: boolean;
  /** Of each sampled token, that it did not refuse. */
  alternatives: number;
  /** First sampled token of the first choice, with its log-prob as reported. */
  first: WireToken | null;
}

/** With as many choices and alternatives as the server lets itself be asked for. */
async function probeSampling(ask: Ask): Promise<Sampled> {
  for (const alternatives of [MAX_ALTERNATIVES, FEW_ALTERNATIVES]) {
    for (const n of [PROBE_CHOICES, 1]) {
      try {
        return await probeChoices(ask, n, alternatives);
      } catch (error) {
        if (!(error instanceof RemoteFailure) || error.kind !== "refused") throw error;
      }
    }
  }
  return probeChoices(ask, 1, 1);
}

async function probeChoices(ask: Ask, n: number, alternatives: number): Promise<Sampled> {
  const fields = {
    max_tokens: PROBE_TOKENS,
    n,
    seed: 1,
    temperature: PROBE_TEMPERATURE,
    top_p: 1,
    top_k: 0,
    ...NO_OTHER_FILTERS,
    ignore_eos: true,
    logprobs: alternatives,
    return_token_ids: true,
    return_tokens_as_token_ids: true,
  };
  const events: unknown[] = [];
  for await (const event of ask.stream(fields)) events.push(event);
  for (const idsFrom of ["token_ids", "content", "tokens"] as const) {
    const read = tryRead(events, idsFrom, ask.vocabSize);
    if (read) return { ...read, alternatives };
  }
  return { idsFrom: null, manyChoices: false, alternatives, first: null };
}

/** Undefined: its ids do not stand there. */
function tryRead(
  events: readonly unknown[],
  idsFrom: IdsFrom,
  vocabSize: number,
): Omit<Sampled, "alternatives"> | undefined {
  try {
    const choices = events.flatMap((event) => readAnswer(event, idsFrom, { vocabSize, n: PROBE_CHOICES }).choices);
    const tokensOf = (index: number) => choices.flatMap((choice) => (choice.index === index ? choice.tokens : []));
    const [first] = tokensOf(0);
    if (!first) return undefined;
    // llama.cpp answers no more choices than it has slots, and does not say how many those are.
    return { idsFrom, manyChoices: idsFrom !== "content" && tokensOf(1).length > 0, first };
  } catch (error) {
    if (error instanceof RemoteFailure && error.kind === "garbage") return undefined;
    throw error;
  }
}

interface Prompts {
  /** Null: no log-probs of prompts. */
  plain: WirePosition[] | null;
  scoresOnly: boolean;
  scales: boolean;
  alternatives: number;
  wholeRows: boolean;
}

async function probePrompts(ask: Ask, options: RemoteOptions): Promise<Prompts> {
  const score = (fields: object): Promise<WirePosition[] | null> =>
    optional(async () => positionsOf(ask, await ask.whole({ temperature: 0, ...fields })));
  const alone = await score({ max_tokens: 0, prompt_logprobs: 0 });
  const scoresOnly = alone !== null;
  const plain = alone ?? (await score({ prompt_logprobs: 0 }));
  if (!plain) return { plain, scoresOnly: false, scales: false, alternatives: 0, wholeRows: false };
  const how = scoresOnly ? { max_tokens: 0 } : {};
  const scaled = await score({ ...how, prompt_logprobs: 0, prompt_logprobs_temperature: PROBE_TEMPERATURE });
  const many = await score({ ...how, prompt_logprobs: MAX_ALTERNATIVES });
  const few = many ?? (await score({ ...how, prompt_logprobs: FEW_ALTERNATIVES }));
  const small = ask.vocabSize <= MAX_WHOLE_VOCABULARY;
  const whole = small ? await score({ ...how, prompt_logprobs: -1 }) : null;
  const wholeRows = whole?.every(({ ids }) => ids.length >= options.vocabSize) ?? false;
  // Padded rows of the head are ids too, and every one has its log-prob.
  if (wholeRows) ask.vocabSize = whole![0]!.ids.length;
  return {
    plain,
    scoresOnly,
    scales: scaled !== null && differ(scaled, plain),
    alternatives: Math.min(
      ...(few ?? []).map(({ ids }) => ids.length),
      many ? MAX_ALTERNATIVES : few ? FEW_ALTERNATIVES : 0,
    ),
    wholeRows,
  };
}

/** OpenAI's own limit for completions. */
const FEW_ALTERNATIVES = 5;

function positionsOf(ask: Ask, value: unknown, ids = ask.ids): WirePosition[] {
  return readPromptLogprobs(value, {
    ids,
    from: 1,
    to: ids.length,
    vocabSize: Math.max(ask.vocabSize, MAX_WHOLE_VOCABULARY),
  });
}

/** Null: the server will not, or does not know what was asked. */
async function optional<T>(ask: () => Promise<T>): Promise<T | null> {
  try {
    return await ask();
  } catch (error) {
    if (error instanceof RemoteFailure && (error.kind === "refused" || error.kind === "garbage")) return null;
    throw error;
  }
}

/** Nats; scaling by a half moves the log-probs of a text by far more. */
const DIFFERENT_NATS = 0.05;

function differ(a: readonly WirePosition[], b: readonly WirePosition[]): boolean {
  return a.some(({ logprob }, i) => Math.abs(logprob - b[i]!.logprob) > DIFFERENT_NATS);
}

/**
 * Whether sampled tokens are reported with the log-probs that they would have as part of the prompt. Differences between ids
 * tell: dividing logits stretches them, whatever was drawn, and far beyond what rounding to bf16 does.
 */
async function probeSampledLogprobs(
  ask: Ask,
  { first }: Sampled,
  { plain, alternatives }: Prompts,
): Promise<Profile["sampledLogprobs"]> {
  if (!first || Number.isNaN(first.logprob)) return null;
  // A server that cannot score a prompt cannot be compared with; all of these report plain log-probs unless told otherwise.
  if (plain === null) return "plain";
  const ids = Int32Array.of(...ask.ids, first.id);
  const body = { temperature: 0, prompt_logprobs: Math.min(alternatives, FEW_ALTERNATIVES) };
  const position = positionsOf(ask, await ask.whole(body, ids), ids).at(-1)!;
  const asPrompt = byId(position.ids, position.logprobs).set(first.id, position.logprob);
  const asSample = byId(first.top?.ids ?? [], first.top?.logprobs ?? []).set(first.id, first.logprob);
  const shared = [...asSample.keys()]
    .filter((id) => asPrompt.has(id))
    .sort((a, b) => asSample.get(b)! - asSample.get(a)!);
  if (shared.length < 2) return Math.abs(position.logprob - first.logprob) < DIFFERENT_NATS ? "plain" : "scaled";
  const spread = (logprobs: Map<number, number>): number => logprobs.get(shared[0]!)! - logprobs.get(shared.at(-1)!)!;
  const seen = spread(asSample);
  const unscaled = spread(asPrompt);
  return Math.abs(seen - unscaled) <= Math.abs(seen - unscaled / PROBE_TEMPERATURE) ? "plain" : "scaled";
}

function byId(ids: ArrayLike<number>, logprobs: ArrayLike<number>): Map<number, number> {
  return new Map(Array.from(ids, (id, i) => [id, logprobs[i]!]));
}

/** An empty request changes nothing: the route is not there, or it says what is missing. */
async function probeAdapters(connection: Connection, signal: AbortSignal | undefined): Promise<boolean> {
  try {
    await connection.post("/load_lora_adapter", {}, { signal, anyAnswer: true, timeoutMs: QUESTION_TIMEOUT_MS });
    return false;
  } catch (error) {
    if (!(error instanceof RemoteFailure) || mayAnswerLater(error)) throw error;
    return error.kind === "refused" && (error.status === 400 || error.status === 422);
  }
}

/** What every one of them can do. They must agree on what they are: throws `backend_failed` where two serve different weights. */
export function commonProfile(profiles: readonly { where: string; profile: Profile }[]): Profile {
  const [first, ...others] = profiles;
  if (!first) throw garbage("no replica answered");
  let common = first.profile;
  for (const { where, profile } of others) {
    const difference = distance(first.profile.probe, profile.probe);
    if (difference > SAME_WEIGHTS_NATS || profile.vocabSize !== common.vocabSize) {
      throw fail(
        "backend_failed",
        `${where} and ${first.where} serve different weights: their log-probs of one text differ by ${difference.toFixed(2)} nats per token`,
        { param: "model" },
      );
    }
    common = meet(common, profile);
  }
  return common;
}

/** Mean |Δ log-prob|, nats; 0 where one of them reports none. */
export function distance(a: Float32Array | null, b: Float32Array | null): number {
  if (!a || !b) return 0;
  return a.reduce((sum, logprob, i) => sum + Math.abs(logprob - b[i]!), 0) / a.length;
}

function meet(a: Profile, b: Profile): Profile {
  const both = (key: BooleanCapability): boolean => a.capabilities[key] && b.capabilities[key];
  const sampleAlike = a.idsFrom === b.idsFrom;
  const exact = [a.capabilities.exact_temperatures, b.capabilities.exact_temperatures];
  return {
    ...a,
    capabilities: {
      sample: both("sample") && sampleAlike,
      logprobs: both("logprobs"),
      exact_temperatures:
        exact.find((temperatures) => temperatures?.length === 0) ??
        exact.find((temperatures) => temperatures !== null) ??
        null,
      topk: both("topk"),
      at_ids: both("at_ids"),
      distributions: both("distributions"),
      adapters: both("adapters"),
      train: false,
      batch_invariant: false,
    },
    idsFrom: sampleAlike ? a.idsFrom : null,
    manyChoices: a.manyChoices && b.manyChoices,
    sampleAlternatives: Math.min(a.sampleAlternatives, b.sampleAlternatives),
    sampledLogprobs: a.sampledLogprobs === b.sampledLogprobs ? a.sampledLogprobs : null,
    scalesPrompts: a.scalesPrompts && b.scalesPrompts,
    wholeRows: a.wholeRows && b.wholeRows,
    alternatives: Math.min(a.alternatives, b.alternatives),
    scoresOnly: a.scoresOnly && b.scoresOnly,
    contextLength: smaller(a.contextLength, b.contextLength),
  };
}

type BooleanCapability = { [K in keyof Capabilities]: Capabilities[K] extends boolean ? K : never }[keyof Capabilities];

function smaller(a: number | null, b: number | null): number | null {
  return a === null ? b : b === null ? a : Math.min(a, b);
}
