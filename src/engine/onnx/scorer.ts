import { DISTRIBUTION_ROWS, type LogprobsResult } from "../engine.ts";
import type { LoadedAdapter } from "./adapters.ts";
import { createCache } from "./kv-cache.ts";
import { CHUNK_TOKENS, headRows, MAX_SCORING } from "./limits.ts";
import type { SequenceMessage } from "./protocol.ts";
import type { Scheduler } from "./scheduler.ts";
import { checkFinite, emptyResult, mismatchedReference, wantedOutputs } from "./score-result.ts";
import { createSemaphore } from "./semaphore.ts";
import type { HeadInputs, Sessions } from "./sessions.ts";

export interface ScoreOptions {
  temperature: number;
  topK: number;
  entropy: boolean;
  rank: boolean;
  adapter: LoadedAdapter | null;
  signal: AbortSignal;
  /** The next chunk (rows, V) of reference log-probs, null at the end. */
  reference: (() => Promise<Float32Array | null>) | null;
}

export interface Scorer {
  logprobs(sequence: SequenceMessage, options: ScoreOptions): Promise<LogprobsResult>;
  /** Chunks (≤ DISTRIBUTION_ROWS, V) of log-probs for tokens from…to−1. */
  distributions(
    sequence: { ids: Int32Array; from: number; to: number },
    options: Pick<ScoreOptions, "temperature" | "adapter" | "signal">,
  ): AsyncGenerator<Float32Array>;
}

/**
 * Log-probs of given text. The layers run over it in chunks with a cache; what they leave is one hidden row per wanted
 * token, and only a few rows at a time meet the vocabulary, so the (T, V) matrix never exists. The cache is gone before
 * the first row is compared with another model's, so two models that wait for each other hold nothing.
 */
export function createScorer(deps: { sessions: Sessions; scheduler: Pick<Scheduler, "background"> }): Scorer {
  const { sessions, scheduler } = deps;
  const { hiddenSize, vocabSize } = sessions.config;
  const turns = createSemaphore(MAX_SCORING);

  /** Hidden states (to − from, hidden) from which tokens from…to−1 are predicted. */
  function hiddenRows(
    ids: Int32Array,
    from: number,
    to: number,
    { adapter, signal }: Pick<ScoreOptions, "adapter" | "signal">,
  ): Promise<Float32Array> {
    return turns.hold(async () => {
      const rows = new Float32Array((to - from) * hiddenSize);
      const cache = createCache(sessions.config);
      cache.rows = 1;
      cache.lengths = [0];
      for (let start = 0; start < to - 1; start += CHUNK_TOKENS) {
        const end = Math.min(start + CHUNK_TOKENS, to - 1);
        const wanted = end > from - 1;
        const chunk = ids.subarray(start, end);
        const hidden = await scheduler.background(() => sessions.forward(cache, chunk, adapter, wanted), signal);
        if (!wanted) continue;
        const skipped = Math.max(0, from - 1 - start);
        rows.set(hidden.subarray(skipped * hiddenSize), (start + skipped - (from - 1)) * hiddenSize);
      }
      return rows;
    });
  }

  const slice = <T extends Float32Array | Int32Array>(array: T, start: number, end: number, width: number): T =>
    array.subarray(start * width, end * width) as T;

  async function logprobs(sequence: SequenceMessage, options: ScoreOptions): Promise<LogprobsResult> {
    const { ids, from, to, at, atWidth } = sequence;
    const count = to - from;
    const result = emptyResult(sequence, options);
    const fetches = wantedOutputs(sequence, options);
    const rows = await hiddenRows(ids, from, to, options);
    const limit = headRows(vocabSize);
    let start = 0;
    while (start < count) {
      const reference = await nextReference(options, count - start);
      const end = reference ? start + reference.length / vocabSize : Math.min(start + limit, count);
      const inputs: HeadInputs = {
        inverseTemperature: new Float32Array(end - start).fill(1 / options.temperature),
        targets: ids.subarray(from + start, from + end),
        k: options.topK,
        ...(at ? { at: slice(at, start, end, atWidth) } : {}),
        ...(reference ? { reference } : {}),
      };
      const input = slice(rows, start, end, hiddenSize);
      const out = await scheduler.background(() => sessions.head(input, inputs, fetches), options.signal);
      result.logprobs.set(out.target, start);
      result.entropy?.set(out.entropy, start);
      result.rank?.set(Int32Array.from(out.rank), start);
      result.at?.set(out.at_logprobs, start * atWidth);
      result.kl?.set(out.kl, start);
      result.topLogprobs?.set(out.top_logprobs, start * options.topK);
      result.topIds?.set(Int32Array.from(out.top_ids, Number), start * options.topK);
      start = end;
    }
    checkFinite(result);
    return result;
  }

  async function nextReference(options: ScoreOptions, remaining: number): Promise<Float32Array | null> {
    if (!options.reference) return null;
    const chunk = await options.reference();
    const rows = chunk ? chunk.length / vocabSize : 0;
    if (!chunk || !Number.isInteger(rows) || rows === 0 || rows > remaining) throw mismatchedReference();
    return chunk;
  }

  async function* distributions(
    { ids, from, to }: { ids: Int32Array; from: number; to: number },
    options: Pick<ScoreOptions, "temperature" | "adapter" | "signal">,
  ): AsyncGenerator<Float32Array> {
    const rows = await hiddenRows(ids, from, to, options);
    for (let start = 0; start < to - from; start += DISTRIBUTION_ROWS) {
      const end = Math.min(start + DISTRIBUTION_ROWS, to - from);
      const inverseTemperature = new Float32Array(end - start).fill(1 / options.temperature);
      const input = slice(rows, start, end, hiddenSize);
      const work = (): Float32Array => sessions.head(input, { inverseTemperature }, ["logprobs"]).logprobs;
      yield await scheduler.background(work, options.signal);
    }
  }

  return { logprobs, distributions };
}
