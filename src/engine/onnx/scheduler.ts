import { fail } from "../../errors.ts";
import type { QueueReason } from "../engine.ts";
import { createFairQueue } from "../fair-queue.ts";
import { tooManyWaiting } from "../overload.ts";
import type { LoadedAdapter } from "./adapters.ts";
import {
  batchBytes,
  begin,
  belongs,
  compact,
  createBatch,
  type DecodeBatch,
  join,
  promisedPositions,
  step,
} from "./batch.ts";
import { createGeneration, finish, flush, type Generation, isOpen, type Sequence } from "./generation.ts";
import { bytesPerPosition } from "./kv-rows.ts";
import {
  CACHE_BYTES,
  CLIENT_CACHE_SHARE,
  GROUP_RUN_SAMPLES,
  MAX_CLIENT_SLOTS,
  MAX_PREFILLS,
  MAX_SLOTS,
  MAX_WAITING,
  MAX_WAITING_PER_CLIENT,
} from "./limits.ts";
import { createLoop } from "./loop.ts";
import { createPrefill } from "./prefill.ts";
import type { PrefixCache } from "./prefix-cache.ts";
import { promptBytes } from "./prompt-kv.ts";
import type { Batch, SampleMessage, WorkerState } from "./protocol.ts";
import type { Scorer } from "./scorer.ts";
import type { Sessions } from "./sessions.ts";

/**
 * Continuous batching: each tick decodes one token for every sequence, then computes a stretch of one waiting prompt, then a
 * piece of scoring. Requests join and leave between two ticks, and nothing waits longer than a tick for its turn.
 */
export interface Scheduler {
  /** Resolves when every sequence has finished or `signal` fires; rejects with what went wrong, `queue_full`, `overloaded`. */
  sample(
    message: SampleMessage,
    adapter: LoadedAdapter | null,
    deliver: (events: Batch) => void,
    signal: AbortSignal,
  ): Promise<void>;
  /** Ends one sequence without an event (the caller already knows). */
  drop(key: number, index: number): void;
  /** Something to score has come. */
  wake(): void;
  state(): WorkerState;
  stop(): void;
}

/** How often those who wait are told a new position; the first one comes at once. */
const TELL_INTERVAL_MS = 500;

export function createScheduler(deps: {
  sessions: Sessions;
  prefixes: PrefixCache;
  scorer: Scorer;
  /** Tokens per run; see limits.ts. */
  chunkTokens: (busy: boolean) => number;
  contextLength: number;
  /** Called after every tick that may have changed `state()`. */
  onTick: () => void;
}): Scheduler {
  const { sessions, scorer, prefixes } = deps;
  const { config } = sessions;
  const positionBytes = bytesPerPosition(config);
  const waiting = createFairQueue<Generation>();
  const prefill = createPrefill(deps);
  /** Their prompts are being computed, a stretch each in turn. */
  const prefilling: Generation[] = [];
  /** Their prompts are computed, and not all samples have started. */
  const starting: Generation[] = [];
  const running = new Map<number, Generation>();
  const batches: DecodeBatch[] = [];
  let lastTold = 0;

  const loop = createLoop(tick);

  function tick(): boolean {
    for (const generation of interactiveFirst(starting)) guard([generation], () => start(generation));
    for (const batch of [...batches]) {
      guard(new Set(batch.sequences.map(({ generation }) => generation)), () => step(sessions, batch, failed));
      compact(batch);
      if (batch.sequences.length === 0) takeOut(batches, batch);
    }
    const budget = deps.chunkTokens(batches.length > 0);
    take();
    const [next] = interactiveFirst(prefilling);
    if (next) {
      takeOut(prefilling, next);
      guard([next], () => advancePrompt(next, budget));
    }
    scorer.step(budget);
    for (const generation of running.values()) flush(generation);
    tellWaiting();
    deps.onTick();
    const busy = prefilling.length + starting.length + batches.length + waiting.size > 0;
    return busy || scorer.pending() > 0;
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
    waiting.remove(generation, false);
    for (const list of [prefilling, starting]) takeOut(list, generation);
    for (const batch of batches) compact(batch);
  }

  /** Takes waiting requests up while there is room for at least one of their samples. */
  function take(): void {
    for (const generation of waiting.inOrder()) {
      const ahead = [...prefilling, ...starting].filter((other) => isJob(generation) || !isJob(other));
      if (ahead.length >= MAX_PREFILLS) return;
      const reason = hindrance(generation);
      // Others need not wait because one client has its share, or because a prompt is being computed that it will share.
      if (reason === "client_limit" || reason === "turn") continue;
      if (reason) return;
      waiting.remove(generation, true);
      prefilling.push(generation);
    }
  }

  function advancePrompt(generation: Generation, budget: number): void {
    if (generation.limit === 0) for (const index of generation.open) finish(generation, index, "length");
    if (generation.open.size === 0) return;
    if (!prefill.advance(generation, budget)) {
      prefilling.push(generation);
      return;
    }
    starting.push(generation);
    start(generation);
  }

  /** Starts as many samples as there is room for. */
  function start(generation: Generation): void {
    const { n } = generation.message;
    const fresh: Sequence[] = [];
    for (; generation.started < n; generation.started++) {
      if (!generation.open.has(generation.started)) continue;
      if (noRoom(generation, fresh.length)) break;
      fresh.push({ generation, index: generation.started, drawn: 0, last: -1 });
    }
    if (fresh.length > 0) begin(sessions, fresh, failed);
    const going = fresh.filter(isOpen);
    if (going.length > 0) {
      const batch = batchOf(generation);
      for (const sequence of going) join(batch, sequence);
    }
    if (generation.started < n) return;
    // It may have failed just now, and is gone already.
    takeOut(starting, generation);
    // The batch holds what its samples read.
    generation.prompt = null;
    generation.last = null;
  }

  function batchOf(generation: Generation): DecodeBatch {
    const group = groupOf(generation);
    const known = batches.find((batch) => belongs(batch, generation, group));
    if (known) return known;
    const batch = createBatch(sessions, generation, group);
    batches.push(batch);
    return batch;
  }

  /** Whether its samples are decoded in a run of their own; the numbers are the same to the bit either way. */
  function groupOf(generation: Generation): Generation | null {
    const { n } = generation.message;
    if (n === 1) return null;
    return n >= GROUP_RUN_SAMPLES || batches.every(({ group }) => group === null || group === generation)
      ? generation
      : null;
  }

  const slots = (of: (generation: Generation) => boolean): number =>
    batches.reduce((sum, { sequences }) => sum + sequences.filter(({ generation }) => of(generation)).length, 0);

  /** Why no sample of this request can start; `more` of its own are about to. */
  function noRoom(generation: Generation, more: number): QueueReason | null {
    const all = slots(() => true) + more;
    if (all === 0) return null;
    if (all >= MAX_SLOTS) return "slots";
    const share = generation.priority === "job" ? isJob : ({ client }: Generation) => client === generation.client;
    if (slots(share) + more >= MAX_CLIENT_SLOTS) return "client_limit";
    if (promisedBytes(generation, more + 1, share) > CACHE_BYTES * CLIENT_CACHE_SHARE) return "client_limit";
    return promisedBytes(generation, more + 1, () => true) > CACHE_BYTES ? "memory" : null;
  }

  const isJob = ({ priority }: Generation): boolean => priority === "job";
  const interactiveFirst = (some: readonly Generation[]): Generation[] => [
    ...some.filter((generation) => !isJob(generation)),
    ...some.filter(isJob),
  ];

  /** Bytes that those being decoded will take by their end, with `more` samples of this request. */
  function promisedBytes(generation: Generation, more: number, of: (generation: Generation) => boolean): number {
    const added = new Array<Generation>(more).fill(generation);
    const group = groupOf(generation);
    let positions = 0;
    let joined = false;
    for (const batch of batches) {
      const owners = batch.sequences.map((sequence) => sequence.generation).filter(of);
      const own = belongs(batch, generation, group);
      positions += promisedPositions(own ? [...owners, ...added] : owners, batch.group !== null);
      joined ||= own;
    }
    if (!joined) positions += promisedPositions(added, group !== null);
    return positions * positionBytes;
  }

  /** Why a waiting request is not taken up now. */
  function hindrance(generation: Generation): QueueReason | null {
    // What two prompts have in common is computed once: the second waits for the first.
    if (prefilling.some((other) => prefill.shares(other, generation))) return "turn";
    return noRoom(generation, prefilling.length + starting.length);
  }

  function tellWaiting(): void {
    if (waiting.size === 0) return;
    const now = Date.now();
    const all = now - lastTold >= TELL_INTERVAL_MS;
    if (all) lastTold = now;
    for (const [i, generation] of waiting.inOrder().entries()) {
      if (!all && generation.told) continue;
      const reason = hindrance(generation) ?? "turn";
      const { told } = generation;
      if (told?.position === i + 1 && told.reason === reason) continue;
      generation.told = { position: i + 1, reason };
      generation.events.push({ type: "queued", ...generation.told });
      flush(generation);
    }
  }

  return {
    sample(message, adapter, deliver, signal) {
      if (waiting.countOf(message.client) >= MAX_WAITING_PER_CLIENT) return Promise.reject(tooManyWaiting("client"));
      if (waiting.size >= MAX_WAITING) return Promise.reject(tooManyWaiting("server"));
      return new Promise((resolve, reject) => {
        const settle = (error?: unknown): void => {
          running.delete(message.key);
          signal.removeEventListener("abort", abort);
          if (error === undefined) resolve();
          else reject(error);
        };
        const generation = createGeneration(message, adapter, deps.contextLength, { deliver, settle });
        const abort = (): void => {
          release(generation);
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
      for (const batch of batches) compact(batch);
      loop.wake();
    },
    wake: loop.wake,
    state() {
      const held = [...prefilling, ...starting];
      const queued = [...waiting.inOrder(), ...held];
      const shared = batches.flatMap(({ prompt }) => ("rows" in prompt ? [] : prompt));
      const prompts = new Set([...shared, ...held.flatMap(({ prompt }) => prompt ?? [])]);
      const prefixBytes = prefixes.bytes();
      const decoding = batches.reduce((sum, batch) => sum + batchBytes(batch), 0);
      return {
        active: slots(() => true),
        waiting: queued.reduce((sum, { message, started }) => sum + message.n - started, 0),
        scoring: scorer.pending(),
        computedTokens: prefill.counts().computed + scorer.counts().computed,
        cachedTokens: prefill.counts().cached + scorer.counts().cached,
        prefixBytes,
        bytes: decoding + prefixBytes + [...prompts].reduce((sum, prompt) => sum + promptBytes(prompt), 0),
      };
    },
    stop: loop.stop,
  };
}

/** Nothing happens when it is not there. */
function takeOut<T>(list: T[], item: T): void {
  const at = list.indexOf(item);
  if (at >= 0) list.splice(at, 1);
}

/** JavaScript reports an array that cannot be allocated as a RangeError. */
function asMemoryError(error: unknown): unknown {
  if (!(error instanceof RangeError)) return error;
  return fail("out_of_memory", "no memory for the keys and values of this request; ask for fewer or shorter samples", {
    cause: error,
  });
}
