/**
 * Deterministic stand-ins for the engine, the tokenizer and the registry: small enough to reason about, consistent
 * enough that numbers can be compared across routes. The fake model's next-token distribution is a pure function of
 * the ids before it, so what `sample` reports must equal what `logprobs` reports for the same ids.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { QueuePlace } from "../../src/caller.ts";
import {
  type Capabilities,
  DISTRIBUTION_ROWS,
  type DistributionsRequest,
  type EngineModel,
  type LogprobsRequest,
  type LogprobsResult,
  type LogprobsSequence,
  type RequestOptions,
  type SampleEvent,
  type SampleRequest,
  type TopLogprobs,
} from "../../src/engine/engine.ts";
import { fail } from "../../src/errors.ts";
import type { ChatMessage, Encoded, PromptRequest, TextModel } from "../../src/text/text.ts";

// ---------------------------------------------------------------------------------------------- text

/** Ids 0–255 are bytes; then special tokens; then words longer than a byte. Ids beyond decode to nothing. */
export const BOS = 256;
export const IM_START = 257;
export const IM_END = 258;
const SPECIALS = ["<|bos|>", "<|im_start|>", "<|im_end|>"];
const WORDS = ["the ", "ing", "tion", "\n\n", "teacher", "student", " = ", "because ", "STOP", "é"];
/** Number of ids the fake tokenizer knows. */
export const TOKENIZER_SIZE = 256 + SPECIALS.length + WORDS.length;
/** Rows of the fake model: padded beyond the tokenizer, as real checkpoints are. */
export const VOCAB_SIZE = TOKENIZER_SIZE + 3;

const utf8 = new TextEncoder();
const words = WORDS.map((word, i) => ({ id: 256 + SPECIALS.length + i, bytes: utf8.encode(word) }));

/** Greedy longest match over the words, bytes otherwise. */
export function encodePlain(text: string): number[] {
  const bytes = utf8.encode(text);
  const ids: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    const word = words.find((w) => w.bytes.every((b, i) => bytes[at + i] === b));
    ids.push(word?.id ?? bytes[at]!);
    at += word?.bytes.length ?? 1;
  }
  return ids;
}

export function encodeRaw(text: string): number[] {
  return text
    .split(/(<\|bos\|>|<\|im_start\|>|<\|im_end\|>)/)
    .flatMap((part) => (SPECIALS.includes(part) ? [256 + SPECIALS.indexOf(part)] : encodePlain(part)));
}

function bytesOf(id: number, special = false): Uint8Array {
  if (id < 256) return Uint8Array.of(id);
  if (id < 256 + SPECIALS.length) return special ? utf8.encode(SPECIALS[id - 256]) : new Uint8Array();
  return words.find((word) => word.id === id)?.bytes ?? new Uint8Array();
}

export function decodeIds(ids: Iterable<number>, special = false): string {
  return new TextDecoder().decode(Uint8Array.from([...ids].flatMap((id) => [...bytesOf(id, special)])));
}

function encoded(ids: number[], fields: Encoded["fields"] = {}): Encoded {
  let end = 0;
  const ends = ids.map((id) => {
    end += bytesOf(id, true).length;
    return end;
  });
  return { ids: Int32Array.from(ids), ends: Int32Array.from(ends), text: decodeIds(ids, true), fields };
}

/** ChatML, with every content tokenised as plain text. */
export function encodeChat(messages: readonly ChatMessage[], assistant = ""): number[] {
  const turns = messages.flatMap((m) => [IM_START, ...encodePlain(`${m.role}\n${m.content}`), IM_END, 10]);
  return [...turns, IM_START, ...encodePlain("assistant\n"), ...encodePlain(assistant)];
}

export interface FakeTextOptions {
  hasChatTemplate?: boolean;
}

/** A byte-level tokenizer with a few words, three special tokens and ChatML. */
export function createFakeText(options: FakeTextOptions = {}): TextModel {
  const hasChatTemplate = options.hasChatTemplate ?? true;
  return {
    tokenizerHash: "sha256:fake",
    size: TOKENIZER_SIZE,
    hasChatTemplate,
    eosIds: [IM_END],
    bytesOf,
    async encode(text, { parseSpecial, addSpecial }) {
      return encoded([...(addSpecial ? [BOS] : []), ...(parseSpecial ? encodeRaw(text) : encodePlain(text))]);
    },
    async encodePrompt(request: PromptRequest) {
      if (!hasChatTemplate && request.chatTemplate === undefined) {
        throw fail("chat_template_missing", "this model has no chat template");
      }
      const parts = request.assistant ?? [];
      const ids = encodeChat(request.messages, parts.map((part) => part.text).join(""));
      const total = utf8.encode(decodeIds(ids, true)).length;
      let at = total - utf8.encode(parts.map((part) => part.text).join("")).length;
      const fields: Record<string, { start: number; end: number }> = {};
      for (const part of parts) {
        const start = at;
        at += utf8.encode(part.text).length;
        if (part.field !== undefined) fields[part.field] = { start, end: at };
      }
      return encoded(request.endOfTurn ? [...ids, IM_END, 10] : ids, fields);
    },
    async decode(ids, decodeOptions) {
      return decodeIds(ids, decodeOptions?.special ?? false);
    },
  };
}

// -------------------------------------------------------------------------------------------- engine

export interface FakeEngineOptions {
  contextLength?: number;
  vocabSize?: number;
  /** Pause before every sampled token. */
  tokenDelayMs?: number;
  /** Ids to emit whatever the distribution says; after the last one the model ends the turn (IM_END). */
  script?: (promptIds: readonly number[], index: number) => readonly number[];
  /** Thrown instead of the token with this number. */
  failAfterTokens?: number;
  capabilities?: Partial<Capabilities>;
  /** Where a request stands before it begins. */
  queue?: readonly QueuePlace[];
  /** How long it stands there. */
  queueMs?: number;
  /** Of every prompt and every scored text. */
  cachedTokens?: number;
  /** Asked before every call: what to throw instead of an answer. */
  refuse?: (kind: "sample" | "logprobs", request: RequestOptions) => Error | undefined;
}

export interface FakeEngine extends EngineModel {
  /** What the engine was asked for, in order. */
  readonly samples: SampleRequest[];
  readonly scored: LogprobsRequest[];
  readonly distributed: DistributionsRequest[];
  /** Sequences ended by their signal. */
  readonly aborted: () => number;
  readonly closed: () => boolean;
}

export function createFakeEngine(options: FakeEngineOptions = {}): FakeEngine {
  const { contextLength = 512, vocabSize = VOCAB_SIZE, tokenDelayMs = 0, script, failAfterTokens } = options;
  const { queue = [], queueMs = 0, cachedTokens = 0, refuse = () => undefined } = options;
  const samples: SampleRequest[] = [];
  const scored: LogprobsRequest[] = [];
  const distributed: DistributionsRequest[] = [];
  let aborted = 0;
  let active = 0;
  let closed = false;
  let computed = 0;
  let cached = 0;

  function count(tokens: number): void {
    computed += tokens - cachedTokens;
    cached += cachedTokens;
  }

  function accept(kind: "sample" | "logprobs", request: RequestOptions): void {
    const refusal = refuse(kind, request);
    if (refusal) throw refusal;
  }

  function checkPrompt(ids: Int32Array): void {
    if (ids.length === 0) throw fail("invalid_value", "empty prompt");
    if (ids.length >= contextLength) throw fail("context_length_exceeded", `${ids.length} of ${contextLength}`);
    if (ids.some((id) => id < 0 || id >= vocabSize)) throw fail("invalid_token_ids", "token id out of range");
  }

  async function* sample(request: SampleRequest): AsyncGenerator<SampleEvent> {
    samples.push(request);
    checkPrompt(request.promptIds);
    accept("sample", request);
    const { n, params, signal } = request;
    for (const place of queue) yield { type: "queued", ...place };
    if (queueMs > 0) await sleep(queueMs, undefined, { signal }).catch(() => undefined);
    if (!signal?.aborted) {
      count(request.promptIds.length);
      yield { type: "prompt", cachedTokens };
    }
    const prompt = [...request.promptIds];
    const drawn: number[][] = Array.from({ length: n }, () => []);
    const open = new Set(drawn.keys());
    active += n;
    try {
      for (let step = 0; open.size > 0; step++) {
        if (tokenDelayMs > 0) await sleep(tokenDelayMs, undefined, { signal }).catch(() => undefined);
        else await Promise.resolve();
        if (failAfterTokens === step) throw fail("engine_failed", "the fake engine failed as asked");
        for (const index of [...open]) {
          const ids = drawn[index]!;
          const finish = (reason: "stop" | "length" | "cancelled"): SampleEvent => {
            open.delete(index);
            active--;
            return { type: "finish", index, reason };
          };
          if (signal?.aborted) {
            aborted++;
            yield finish("cancelled");
            continue;
          }
          const prefix = [...prompt, ...ids];
          const scripted = script?.(prompt, index);
          const id = scripted ? (scripted[step] ?? IM_END) : draw(prefix, request, index, step, vocabSize);
          ids.push(id);
          const temperature = request.logprobsTemperature ?? (params.temperature || 1);
          const row = fakeLogprobs(prefix, temperature, vocabSize);
          const k = request.topLogprobs ?? 0;
          yield { type: "token", index, id, logprob: row[id]!, ...(k > 0 ? { top: topOf(row, k) } : {}) };
          if (request.stopIds.includes(id) || request.shouldStop?.(index, ids)) yield finish("stop");
          else if (ids.length >= params.maxTokens || prefix.length + 1 >= contextLength) yield finish("length");
        }
      }
    } finally {
      active -= open.size;
      if (open.size > 0 && signal?.aborted) aborted += open.size;
    }
  }

  return {
    capabilities: {
      sample: true,
      logprobs: true,
      exact_temperatures: null,
      topk: true,
      at_ids: true,
      distributions: true,
      adapters: true,
      train: false,
      batch_invariant: true,
      ...options.capabilities,
    },
    precision: "fp32",
    vocabSize,
    contextLength,
    memoryBytes: () => 1_000_000,
    weights: { key: "fake", bytes: 900_000 },
    sample,
    async logprobs(request) {
      scored.push(request);
      accept("logprobs", request);
      for (const { ids } of request.sequences) count(ids.length);
      const options = { vocabSize, cachedTokens };
      return Promise.all(request.sequences.map((sequence) => scoreSequence(sequence, request, options)));
    },
    distributions(request) {
      distributed.push(request);
      return distributions(request, vocabSize);
    },
    load: () => ({
      active,
      waiting: 0,
      scoring: 0,
      computedTokens: computed,
      cachedTokens: cached,
      prefixBytes: 1_000,
    }),
    async close() {
      closed = true;
    },
    samples,
    scored,
    distributed,
    aborted: () => aborted,
    closed: () => closed,
  };
}

/** (V) log-probs of the token after `prefix`: softmax of hashed logits in −4…4, divided by the temperature. */
export function fakeLogprobs(prefix: readonly number[], temperature = 1, vocabSize = VOCAB_SIZE): Float32Array {
  let state = 2166136261;
  for (const id of prefix) state = Math.imul(state ^ (id + 1), 16777619);
  const logits = Float64Array.from({ length: vocabSize }, (_, id) => (unit(state, id) * 8 - 4) / temperature);
  const max = logits.reduce((a, b) => Math.max(a, b));
  const logSum = max + Math.log(logits.reduce((sum, x) => sum + Math.exp(x - max), 0));
  return Float32Array.from(logits, (x) => x - logSum);
}

/** A number in [0, 1) from two integers. */
function unit(a: number, b: number): number {
  let x = Math.imul(a ^ Math.imul(b + 0x9e3779b9, 0x85ebca6b), 0xc2b2ae35);
  x ^= x >>> 15;
  x = Math.imul(x, 0x2c1b3c6d);
  x ^= x >>> 13;
  return (x >>> 0) / 2 ** 32;
}

/** Inverse CDF over the most likely ids that top-k and top-p leave, keyed by (seed, sample, step). */
function draw(prefix: number[], request: SampleRequest, index: number, step: number, vocabSize: number): number {
  const { temperature, topK, topP } = request.params;
  const row = fakeLogprobs(prefix, temperature || 1, vocabSize);
  const order = [...row.keys()].sort((a, b) => row[b]! - row[a]!);
  if (temperature === 0) return order[0]!;
  const kept: number[] = [];
  let mass = 0;
  for (const id of topK > 0 ? order.slice(0, topK) : order) {
    if (mass >= topP) break;
    kept.push(id);
    mass += Math.exp(row[id]!);
  }
  let left = unit(request.seed ^ Math.imul(index + 1, 0x27d4eb2f), step) * mass;
  for (const id of kept) {
    left -= Math.exp(row[id]!);
    if (left < 0) return id;
  }
  return kept[0]!;
}

function topOf(row: Float32Array, k: number): TopLogprobs {
  const ids = Int32Array.from([...row.keys()].sort((a, b) => row[b]! - row[a]!).slice(0, k));
  return { ids, logprobs: Float32Array.from(ids, (id) => row[id]!) };
}

async function scoreSequence(
  sequence: LogprobsSequence,
  request: LogprobsRequest,
  { vocabSize, cachedTokens }: { vocabSize: number; cachedTokens: number },
): Promise<LogprobsResult> {
  const { ids, from = 1, to = ids.length, at, atWidth = 0 } = sequence;
  if (ids.some((id) => id < 0 || id >= vocabSize)) throw fail("invalid_token_ids", "token id out of range");
  const rows = Array.from({ length: to - from }, (_, j) =>
    fakeLogprobs([...ids.subarray(0, from + j)], request.temperature, vocabSize),
  );
  const tops = rows.map((row) => topOf(row, request.topK ?? 0));
  const logprobs = Float32Array.from(rows, (row, j) => row[ids[from + j]!]!);
  const result: LogprobsResult = { from, to, cachedTokens, logprobs };
  if (request.entropy) result.entropy = Float32Array.from(rows, (row) => row.reduce((h, l) => h - Math.exp(l) * l, 0));
  if (request.rank) {
    result.rank = Int32Array.from(rows, (row, j) => 1 + row.filter((l) => l > row[ids[from + j]!]!).length);
  }
  if (request.topK) {
    result.topIds = Int32Array.from(tops.flatMap((top) => [...top.ids]));
    result.topLogprobs = Float32Array.from(tops.flatMap((top) => [...top.logprobs]));
  }
  if (at) result.at = Float32Array.from(at, (id, i) => rows[Math.floor(i / atWidth)]![id]!);
  if (sequence.reference) {
    const kl: number[] = [];
    for await (const chunk of sequence.reference) {
      for (let start = 0; start < chunk.length; start += vocabSize) {
        const own = rows[kl.length]!;
        const other = chunk.subarray(start, start + vocabSize);
        kl.push(other.reduce((sum, l, id) => sum + Math.exp(l) * (l - own[id]!), 0));
      }
    }
    result.kl = Float32Array.from(kl);
  }
  return result;
}

async function* distributions(request: DistributionsRequest, vocabSize: number): AsyncGenerator<Float32Array> {
  for (let start = request.from; start < request.to; start += DISTRIBUTION_ROWS) {
    const rows = Math.min(DISTRIBUTION_ROWS, request.to - start);
    const chunk = new Float32Array(rows * vocabSize);
    for (let r = 0; r < rows; r++) {
      chunk.set(fakeLogprobs([...request.ids.subarray(0, start + r)], request.temperature, vocabSize), r * vocabSize);
    }
    yield chunk;
  }
}
