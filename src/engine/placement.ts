import { deferred } from "../deferred.ts";
import { fail } from "../errors.ts";
import type { Checkpoint } from "../model/checkpoint.ts";
import type { Engine, EngineModel, OpenOptions } from "./engine.ts";

/** Which models are in memory. Models load on first use and leave, least recently used first, under one budget. */
export interface Placement {
  /**
   * Loads the model if needed and keeps it loaded until `release` is called. Waits for room while other models are in use;
   * throws `model_loading` (503) when that takes too long, `out_of_memory` when it cannot ever fit.
   */
  hold(checkpoint: Checkpoint, options: OpenOptions, use?: HoldOptions): Promise<Held>;
  /** Where a model stands now. */
  status(checkpoint: Checkpoint, options: OpenOptions): "loaded" | "loading" | "unloaded";
  /** The loaded model, if any, without holding it (metrics, status). */
  peek(checkpoint: Checkpoint, options: OpenOptions): EngineModel | undefined;
  /** Lets an unused model go now (it was deleted); one in use goes when released. */
  drop(checkpoint: Checkpoint, options: OpenOptions): Promise<void>;
  loaded(): { directory: string; precision: string; bytes: number; active: number; waiting: number; held: number }[];
  close(): Promise<void>;
}

export interface Held {
  model: EngineModel;
  release(): void;
}

export interface HoldOptions {
  /** A pinned model never leaves by itself. */
  pinned?: boolean;
  signal?: AbortSignal | undefined;
}

export interface PlacementDeps {
  engine: Engine;
  /** Bytes that loaded models may take together. */
  budgetBytes: number;
  /** How long a request waits for room before it is told to come back. */
  waitMs?: number;
  onLoad?: (event: { directory: string; precision: string; bytes: number; ms: number }) => void;
  onUnload?: (event: { directory: string; precision: string }) => void;
}

/** A client's own timeout is rarely longer; api.md promises that a request waits this long for a model to load. */
const DEFAULT_WAIT_MS = 120_000;
const RETRY_AFTER_SECONDS = 5;
/** Activations and caches beside the weights, before anything has been measured. */
const OVERHEAD_BYTES = 64 * 1024 * 1024;
const BYTES_PER_WEIGHT = { fp32: 4, q8: 1.125, q4: 0.625 } as const;

interface Entry {
  key: string;
  directory: string;
  precision: string;
  bytes: number;
  held: number;
  pinned: boolean;
  dropped: boolean;
  lastUsed: number;
  model: EngineModel | undefined;
  loading: Promise<EngineModel>;
}

export function createPlacement(deps: PlacementDeps): Placement {
  const entries = new Map<string, Entry>();
  const waitMs = deps.waitMs ?? DEFAULT_WAIT_MS;
  /** Resolved whenever something was released or failed to load: those who wait for room look again. */
  let changed = deferred<void>();
  let clock = 0;
  let closed = false;

  const keyOf = (checkpoint: Checkpoint, options: OpenOptions): string =>
    [checkpoint.directory, checkpoint.weightsHash, options.precision, options.device, options.contextLength].join("\n");
  const used = (): number => [...entries.values()].reduce((sum, entry) => sum + entry.bytes, 0);

  function notify(): void {
    changed.resolve();
    changed = deferred<void>();
  }

  async function unload(entry: Entry): Promise<void> {
    entries.delete(entry.key);
    deps.onUnload?.({ directory: entry.directory, precision: entry.precision });
    await entry.model?.close();
    notify();
  }

  async function makeRoom(bytes: number, signal: AbortSignal | undefined): Promise<void> {
    const deadline = Date.now() + waitMs;
    while (used() + bytes > deps.budgetBytes) {
      const idle = [...entries.values()].filter((entry) => entry.held === 0 && !entry.pinned && entry.model);
      const oldest = idle.sort((a, b) => a.lastUsed - b.lastUsed)[0];
      if (oldest) {
        await unload(oldest);
        continue;
      }
      const left = deadline - Date.now();
      if (left <= 0) {
        throw fail("model_loading", "other models are in use and memory is full; try again shortly", {
          retryAfterSeconds: RETRY_AFTER_SECONDS,
        });
      }
      await waitFor(changed.promise, left, signal);
    }
  }

  function load(key: string, checkpoint: Checkpoint, options: OpenOptions, bytes: number): Entry {
    const started = Date.now();
    const entry: Entry = {
      key,
      directory: checkpoint.directory,
      precision: options.precision,
      bytes,
      held: 0,
      pinned: false,
      dropped: false,
      lastUsed: ++clock,
      model: undefined,
      loading: deps.engine.open(checkpoint, options),
    };
    entries.set(key, entry);
    entry.loading.then(
      (model) => {
        entry.model = model;
        entry.bytes = Math.max(model.memoryBytes(), 1);
        deps.onLoad?.({
          directory: entry.directory,
          precision: entry.precision,
          bytes: entry.bytes,
          ms: Date.now() - started,
        });
      },
      () => {
        entries.delete(key);
        notify();
      },
    );
    return entry;
  }

  return {
    async hold(checkpoint, options, use = {}) {
      if (closed) throw fail("draining", "the server is shutting down", { retryAfterSeconds: RETRY_AFTER_SECONDS });
      const key = keyOf(checkpoint, options);
      let entry = entries.get(key);
      if (!entry) {
        const bytes = estimateBytes(checkpoint, options);
        if (bytes > deps.budgetBytes) {
          throw fail(
            "out_of_memory",
            `this model needs about ${gib(bytes)} at ${options.precision}; PRECEPTOR_MODEL_MEMORY allows ${gib(deps.budgetBytes)}`,
          );
        }
        await makeRoom(bytes, use.signal);
        // Another request may have begun loading the same model while this one waited.
        entry = entries.get(key) ?? load(key, checkpoint, options, bytes);
      }
      const mine = entry;
      mine.held++;
      mine.pinned ||= use.pinned ?? false;
      let released = false;
      const release = (): void => {
        if (released) return;
        released = true;
        mine.held--;
        mine.lastUsed = ++clock;
        if (mine.dropped && mine.held === 0) void unload(mine);
        else notify();
      };
      try {
        return { model: await mine.loading, release };
      } catch (error) {
        release();
        throw error;
      }
    },
    status(checkpoint, options) {
      const entry = entries.get(keyOf(checkpoint, options));
      if (!entry) return "unloaded";
      return entry.model ? "loaded" : "loading";
    },
    peek: (checkpoint, options) => entries.get(keyOf(checkpoint, options))?.model,
    async drop(checkpoint, options) {
      const entry = entries.get(keyOf(checkpoint, options));
      if (!entry) return;
      entry.dropped = true;
      if (entry.held === 0) await unload(entry);
    },
    loaded: () =>
      [...entries.values()].flatMap((entry) =>
        entry.model
          ? [
              {
                directory: entry.directory,
                precision: entry.precision,
                bytes: entry.bytes,
                held: entry.held,
                ...entry.model.load(),
              },
            ]
          : [],
      ),
    async close() {
      closed = true;
      await Promise.allSettled(
        [...entries.values()].map(async (entry) => {
          const model = await entry.loading;
          await model.close();
        }),
      );
      entries.clear();
    },
  };
}

/** Bytes a model is expected to take before it has been loaded and measured. */
export function estimateBytes(checkpoint: Checkpoint, { precision }: Pick<OpenOptions, "precision">): number {
  return Math.ceil(checkpoint.parameters * BYTES_PER_WEIGHT[precision]) + OVERHEAD_BYTES;
}

function gib(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}

async function waitFor(promise: Promise<void>, ms: number, signal: AbortSignal | undefined): Promise<void> {
  const { promise: over, resolve, reject } = deferred<void>();
  const timer = setTimeout(resolve, ms);
  const abort = (): void => reject(fail("cancelled", "the request was cancelled"));
  signal?.addEventListener("abort", abort, { once: true });
  try {
    await Promise.race([promise, over]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}
