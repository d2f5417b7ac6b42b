import { fail } from "../../errors.ts";
import type { LoadedAdapter } from "./adapters.ts";
import { compact, createBatch, type DecodeBatch, join, predict, step } from "./batch.ts";
import { advance, createGeneration, finish, flush, type Generation, isOpen, type Sequence } from "./generation.ts";
import { bytesPerPosition, cacheBytes, roundCapacity } from "./kv-cache.ts";
import { CACHE_BYTES, CHUNK_TOKENS, MAX_SLOTS } from "./limits.ts";
import { createLoop } from "./loop.ts";
import type { Batch, SampleMessage, WorkerState } from "./protocol.ts";
import type { Sessions } from "./sessions.ts";

/**
 * Shares the machine between everything a model is asked: each tick computes one prompt chunk, one token for every
 * sequence being decoded, and one piece of background work (scoring). Nothing waits longer than a tick for its turn.
 */
export interface Scheduler {
  /** Resolves when every sequence has finished or `signal` fires; rejects with what went wrong. */
  sample(
    message: SampleMessage,
    adapter: LoadedAdapter | null,
    deliver: (events: Batch) => void,
    signal: AbortSignal,
  ): Promise<void>;
  /** Ends one sequence without an event (the caller already knows). */
  drop(key: number, index: number): void;
  /** Runs one piece of blocking work in turn with everything else. Rejects with `cancelled` once `signal` has fired. */
  background<T>(work: () => T, signal: AbortSignal): Promise<T>;
  state(): WorkerState;
  stop(): void;
}

export function createScheduler(deps: {
  sessions: Sessions;
  contextLength: number;
  /** Called after every tick that may have changed `state()`. */
  onTick: () => void;
}): Scheduler {
  const { sessions, contextLength } = deps;
  const { config } = sessions;
  const waiting: Generation[] = [];
  const running = new Map<number, Generation>();
  const batches = new Map<LoadedAdapter | null, DecodeBatch>();
  const pieces: (() => void)[] = [];
  let current: Generation | undefined;

  const loop = createLoop(tick);

  function tick(): boolean {
    current ??= waiting.shift();
    if (current) {
      const generation = current;
      guard([generation], () => advancePrompt(generation));
      if (generation.open.size === 0 || generation.started === generation.message.n) leave(generation);
    }
    for (const [key, batch] of batches) {
      const owners = new Set(batch.sequences.map(({ generation }) => generation));
      guard(owners, () => step(sessions, batch, failed));
      compact(batch);
      if (batch.sequences.length === 0) batches.delete(key);
    }
    pieces.shift()?.();
    for (const generation of running.values()) flush(generation);
    deps.onTick();
    return current !== undefined || waiting.length > 0 || batches.size > 0 || pieces.length > 0;
  }

  /** A failure belongs to the requests that were being computed; everything else goes on. */
  function guard(generations: Iterable<Generation>, work: () => void): void {
    try {
      work();
    } catch (error) {
      const known = asMemoryError(error);
      for (const generation of generations) failed(generation, known);
    }
  }

  function failed(generation: Generation, error: unknown): void {
    release(generation);
    generation.settle(error);
  }

  /** Forgets a request's sequences; their rows leave the batch at once. */
  function release(generation: Generation): void {
    generation.open.clear();
    generation.events = [];
    const at = waiting.indexOf(generation);
    if (at >= 0) waiting.splice(at, 1);
    if (current === generation) current = undefined;
  }

  function leave(generation: Generation): void {
    generation.prompt = null;
    generation.first = null;
    current = undefined;
  }

  function advancePrompt(generation: Generation): void {
    if (generation.limit === 0) for (const index of generation.open) finish(generation, index, "length");
    if (generation.open.size === 0) return;
    if (!generation.first) prefill(generation);
    if (generation.first) admit(generation);
  }

  /** One chunk of the prompt; after the last one, the distribution of the first token. */
  function prefill(generation: Generation): void {
    const { promptIds } = generation.message;
    const cache = generation.prompt!;
    const from = cache.lengths[0]!;
    const to = Math.min(from + CHUNK_TOKENS, promptIds.length);
    const isLast = to === promptIds.length;
    const hidden = sessions.forward(cache, promptIds.subarray(from, to), generation.adapter, isLast);
    if (!isLast) return;
    generation.first = predict(sessions, hidden.subarray(hidden.length - config.hiddenSize), [generation])[0]!;
  }

  /** Starts as many sequences as there is room for. */
  function admit(generation: Generation): void {
    const { n } = generation.message;
    while (generation.started < n) {
      const index = generation.started;
      if (generation.open.has(index)) {
        if (!hasRoom(generation)) return;
        const sequence: Sequence = { generation, index, drawn: 0, last: -1 };
        advance(sequence, generation.first!);
        if (isOpen(sequence)) join(batchOf(generation.adapter), sequence, generation.prompt!);
      }
      generation.started++;
    }
  }

  function batchOf(adapter: LoadedAdapter | null): DecodeBatch {
    const batch = batches.get(adapter) ?? createBatch(sessions, adapter);
    batches.set(adapter, batch);
    return batch;
  }

  /** Slots are free, and the memory that the longest row will need by its end can be had for every row of the batch. */
  function hasRoom(generation: Generation): boolean {
    const all = [...batches.values()].reduce((sum, { sequences }) => sum + sequences.length, 0);
    if (all === 0) return true;
    if (all >= MAX_SLOTS) return false;
    const own = batches.get(generation.adapter)?.sequences ?? [];
    const others = [...batches.values()].filter(({ adapter }) => adapter !== generation.adapter);
    const promised = others.reduce((sum, batch) => sum + promisedBytes(batch.sequences.map((s) => s.generation)), 0);
    return promised + promisedBytes([...own.map((s) => s.generation), generation]) <= CACHE_BYTES;
  }

  function promisedBytes(generations: readonly Generation[]): number {
    const longest = generations.reduce(
      (most, { message, limit }) => Math.max(most, message.promptIds.length + limit),
      0,
    );
    return generations.length * roundCapacity(longest) * bytesPerPosition(config);
  }

  return {
    sample(message, adapter, deliver, signal) {
      return new Promise((resolve, reject) => {
        const settle = (error?: unknown): void => {
          running.delete(message.key);
          signal.removeEventListener("abort", abort);
          if (error === undefined) resolve();
          else reject(error);
        };
        const generation = createGeneration(message, adapter, contextLength, config, { deliver, settle });
        const abort = (): void => {
          release(generation);
          for (const batch of batches.values()) compact(batch);
          settle();
          loop.wake();
        };
        if (signal.aborted) return resolve();
        signal.addEventListener("abort", abort);
        running.set(message.key, generation);
        waiting.push(generation);
        loop.wake();
      });
    },
    drop(key, index) {
      running.get(key)?.open.delete(index);
      for (const batch of batches.values()) compact(batch);
      loop.wake();
    },
    background(work, signal) {
      return new Promise((resolve, reject) => {
        pieces.push(() => {
          if (signal.aborted) return reject(fail("cancelled", "the caller cancelled this request"));
          try {
            resolve(work());
          } catch (error) {
            reject(error);
          }
        });
        loop.wake();
      });
    },
    state() {
      const active = [...batches.values()].reduce((sum, { sequences }) => sum + sequences.length, 0);
      const queued = current ? [current, ...waiting] : waiting;
      const idle = queued.reduce((sum, { message, started }) => sum + message.n - started, 0);
      const bytes = [...batches.values()].reduce((sum, { cache }) => sum + cacheBytes(cache), 0);
      return { active, waiting: idle, bytes: bytes + (current?.prompt ? cacheBytes(current.prompt) : 0) };
    },
    stop: loop.stop,
  };
}

/** JavaScript reports an array that cannot be allocated as a RangeError. */
function asMemoryError(error: unknown): unknown {
  if (!(error instanceof RangeError)) return error;
  return fail("out_of_memory", "no memory for the keys and values of this request; ask for fewer or shorter samples", {
    cause: error,
  });
}
