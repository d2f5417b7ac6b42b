import { DISTRIBUTION_ROWS, type LogprobsResult, type Priority } from "../engine.ts";
import type { LoadedAdapter } from "./adapters.ts";
import { createHeadQueue } from "./head-queue.ts";
import { headRows } from "./limits.ts";
import type { PrefixCache } from "./prefix-cache.ts";
import type { SequenceMessage } from "./protocol.ts";
import { createReader } from "./reader.ts";
import { checkFinite, emptyResult, mismatchedReference, wantedOutputs } from "./score-result.ts";
import type { HeadInputs, Sessions } from "./sessions.ts";

export interface ReadOptions {
  adapter: LoadedAdapter | null;
  client: string;
  priority: Priority;
  signal: AbortSignal;
}

export interface ScoreOptions extends ReadOptions {
  temperature: number;
  topK: number;
  entropy: boolean;
  rank: boolean;
  /** The next chunk (rows, V) of reference log-probs, null at the end. */
  reference: (() => Promise<Float32Array | null>) | null;
}

export interface Scorer {
  logprobs(sequence: SequenceMessage, options: ScoreOptions): Promise<LogprobsResult>;
  /** Chunks (≤ DISTRIBUTION_ROWS, V) of log-probs for tokens from…to−1. */
  distributions(
    sequence: { ids: Int32Array; from: number; to: number },
    options: ReadOptions & { temperature: number },
  ): AsyncGenerator<Float32Array>;
  /** Computes one piece of what waits: at most `budget` tokens through the layers, or a few rows through the head. */
  step(budget: number): void;
  /** Texts under way or waiting. */
  pending(): number;
  /** Tokens read so far. */
  counts(): { computed: number; cached: number };
}

/**
 * Log-probs of given text. The layers run over it and leave one hidden row per wanted token (reader.ts); only a few rows at
 * a time meet the vocabulary (head-queue.ts), so the (T, V) matrix never exists. Keys and values are gone before the first
 * row is compared with another model's, so two models that wait for each other hold nothing.
 */
export function createScorer(deps: { sessions: Sessions; prefixes: PrefixCache; wake: () => void }): Scorer {
  const { sessions } = deps;
  const { hiddenSize, vocabSize } = sessions.config;
  const reader = createReader(deps);
  const head = createHeadQueue(deps);

  const slice = <T extends Float32Array | Int32Array>(array: T, start: number, end: number, width: number): T =>
    array.subarray(start * width, end * width) as T;

  async function logprobs(sequence: SequenceMessage, options: ScoreOptions): Promise<LogprobsResult> {
    const { ids, from, to, at, atWidth } = sequence;
    const count = to - from;
    const fetches = wantedOutputs(sequence, options);
    const { rows, cachedTokens } = await reader.read({ ids, from, to }, options);
    const result = emptyResult(sequence, options, cachedTokens);

    async function piece(start: number, end: number, reference: Float32Array | null): Promise<void> {
      const inputs: HeadInputs = {
        inverseTemperature: new Float32Array(end - start).fill(1 / options.temperature),
        targets: ids.subarray(from + start, from + end),
        k: options.topK,
        ...(at ? { at: slice(at, start, end, atWidth) } : {}),
        ...(reference ? { reference } : {}),
      };
      const out = await head.run(slice(rows, start, end, hiddenSize), inputs, fetches, options);
      result.logprobs.set(out.target, start);
      result.entropy?.set(out.entropy, start);
      result.rank?.set(Int32Array.from(out.rank), start);
      result.at?.set(out.at_logprobs, start * atWidth);
      result.kl?.set(out.kl, start);
      result.topLogprobs?.set(out.top_logprobs, start * options.topK);
      result.topIds?.set(Int32Array.from(out.top_ids, Number), start * options.topK);
    }

    if (options.reference) {
      for (let start = 0; start < count; ) {
        const reference = await nextReference(options.reference, count - start);
        const end = start + reference.length / vocabSize;
        await piece(start, end, reference);
        start = end;
      }
    } else {
      const limit = headRows(vocabSize);
      const starts = Array.from({ length: Math.ceil(count / limit) }, (_, i) => i * limit);
      await Promise.all(starts.map((start) => piece(start, Math.min(start + limit, count), null)));
    }
    checkFinite(result);
    return result;
  }

  async function nextReference(next: () => Promise<Float32Array | null>, remaining: number): Promise<Float32Array> {
    const chunk = await next();
    const rows = chunk ? chunk.length / vocabSize : 0;
    if (!chunk || !Number.isInteger(rows) || rows === 0 || rows > remaining) throw mismatchedReference();
    return chunk;
  }

  async function* distributions(
    { ids, from, to }: { ids: Int32Array; from: number; to: number },
    options: ReadOptions & { temperature: number },
  ): AsyncGenerator<Float32Array> {
    const { rows } = await reader.read({ ids, from, to }, options);
    for (let start = 0; start < to - from; start += DISTRIBUTION_ROWS) {
      const end = Math.min(start + DISTRIBUTION_ROWS, to - from);
      const inverseTemperature = new Float32Array(end - start).fill(1 / options.temperature);
      const out = await head.run(slice(rows, start, end, hiddenSize), { inverseTemperature }, ["logprobs"], options);
      yield out.logprobs;
    }
  }

  return {
    logprobs,
    distributions,
    step(budget) {
      // Rows that are ready first: they take memory, and somebody waits for the last of them.
      if (!head.step()) reader.step(budget);
    },
    pending: () => reader.pending() + head.pending(),
    counts: reader.counts,
  };
}
