import { deferred } from "../deferred.ts";
import { fail } from "../errors.ts";
import type { Checkpoint } from "../model/checkpoint.ts";
import { once } from "../once.ts";
import { within } from "../within.ts";
import type { Engine, EngineModel, ModelLoad, OpenOptions, Precision } from "./engine.ts";

/** Which models are in memory. Models load on first use and leave, least recently used first, under one budget. */
export interface Placement {
  /**
   * Loads the model if needed and keeps it loaded until `release` is called. Waits for room while other models are in
   * use, and for the load. Throws `model_loading` (503) when that takes longer than `waitMs`, `out_of_memory` when it
   * cannot ever fit, `cancelled`, `draining`, or what the engine threw.
   */
  hold(checkpoint: Checkpoint, options: OpenOptions, use?: HoldOptions): Promise<Held>;
  /** Where a model stands now. */
  status(checkpoint: Checkpoint, options: OpenOptions): "loaded" | "loading" | "unloaded";
  /** Why the last attempt to load it failed; undefined from the next success on. */
  failure(checkpoint: Checkpoint, options: OpenOptions): unknown;
  /** The loaded model, if any, without holding it (metrics, status). */
  peek(checkpoint: Checkpoint, options: OpenOptions): EngineModel | undefined;
  /** While anybody (`by`) pins a loaded model, it never leaves by itself. */
  pin(checkpoint: Checkpoint, options: OpenOptions, by: string, pinned: boolean): void;
  /** Lets an unused model go now (it was deleted); one in use goes when released, unless somebody takes it up again. */
  drop(checkpoint: Checkpoint, options: OpenOptions): Promise<void>;
  loaded(): LoadedModel[];
  /** Ends every model. Those who wait are told `draining`. */
  close(): Promise<void>;
}

export interface LoadedModel extends ModelLoad {
  directory: string;
  precision: string;
  /** What it takes; weights that several models map are counted for the first. */
  bytes: number;
  /** Requests that hold it. */
  held: number;
}

export interface Held {
  model: EngineModel;
  release(): void;
}

export interface HoldOptions {
  signal?: AbortSignal | undefined;
  /** A model that the same request holds already: if the two never fit together, that is said at once. */
  beside?: EngineModel | undefined;
}

export interface PlacementDeps {
  engine: Pick<Engine, "open">;
  /** Bytes that loaded models may take together. */
  budgetBytes: number;
  /** How long a request waits for room and for the load before it is told to come back. */
  waitMs?: number;
  onLoad?: (event: { directory: string; precision: string; bytes: number; ms: number }) => void;
  onUnload?: (event: { directory: string; precision: string; load: ModelLoad }) => void;
}

/** A client's own timeout is rarely longer; api.md promises that a request waits this long for a model to load. */
const DEFAULT_WAIT_MS = 120_000;
const RETRY_AFTER_SECONDS = 5;
/** Activations and caches beside the weights, before anything has been measured. */
const OVERHEAD_BYTES = 64 * 1024 * 1024;
/** Quantised weights have a float32 scale per block, and q4 half a byte of zero point. */
const BYTES_PER_WEIGHT: Readonly<Record<Precision, number>> = {
  fp32: 4,
  q8: 1 + 4 / 128,
  q4: 0.5 + 4.5 / 128,
  q8_0: 1 + 4 / 32,
  q4_0: 0.5 + 4 / 32,
};

interface Entry {
  key: string;
  /** Checkpoint, precision and device: entries that differ only in context or threads map the same weights. */
  base: string;
  directory: string;
  precision: string;
  /** What it is expected to take; once loaded, the model is asked, since its caches grow. */
  estimate: number;
  held: number;
  pinnedBy: Set<string>;
  /** It goes when nobody holds it any more. */
  dropped: boolean;
  lastUsed: number;
  model: EngineModel | undefined;
  loading: Promise<EngineModel>;
  /** Set when it is leaving: nobody takes it up again, and its memory counts until it is gone. */
  closing: Promise<void> | undefined;
}

export function createPlacement(deps: PlacementDeps): Placement {
  const entries = new Map<string, Entry>();
  const failures = new Map<string, unknown>();
  const waitMs = deps.waitMs ?? DEFAULT_WAIT_MS;
  /** Resolved whenever room may have appeared: those who wait look again. */
  let changed = deferred<void>();
  let clock = 0;
  let closed = false;

  /** What each takes, in order; weights that an earlier one maps already cost nothing again. */
  function bytesOf(some: Iterable<Entry>): number[] {
    const counted = new Set<string>();
    return [...some].map(({ base, model, estimate }) => {
      const shared = counted.has(base);
      counted.add(base);
      if (!model) return shared ? OVERHEAD_BYTES : estimate;
      return model.memoryBytes() - (shared ? model.weights.bytes : 0);
    });
  }
  const total = (some: Iterable<Entry>): number => bytesOf(some).reduce((sum, bytes) => sum + bytes, 0);
  const of = (checkpoint: Checkpoint, options: OpenOptions): Entry | undefined =>
    entries.get(keyOf(checkpoint, options));

  function notify(): void {
    changed.resolve();
    changed = deferred<void>();
  }

  /** Begins to load. Nothing is awaited between the look at the budget and this, so two can never take the same room. */
  function load(key: string, checkpoint: Checkpoint, options: OpenOptions): Entry {
    const started = Date.now();
    const { directory } = checkpoint;
    const { precision } = options;
    const entry: Entry = {
      key,
      base: baseOf(checkpoint, options),
      directory,
      precision,
      estimate: estimateBytes(checkpoint, options),
      held: 0,
      pinnedBy: new Set(),
      dropped: false,
      lastUsed: ++clock,
      model: undefined,
      loading: deps.engine.open(checkpoint, options),
      closing: undefined,
    };
    entries.set(key, entry);
    entry.loading.then(
      (model) => {
        entry.model = model;
        failures.delete(key);
        deps.onLoad?.({ directory, precision, bytes: model.memoryBytes(), ms: Date.now() - started });
        notify();
      },
      (error: unknown) => {
        failures.set(key, error);
        forget(entry);
      },
    );
    return entry;
  }

  function forget(entry: Entry): void {
    if (entries.get(entry.key) === entry) entries.delete(entry.key);
    notify();
  }

  /** Never rejects. */
  function unload(entry: Entry): Promise<void> {
    entry.closing ??= (async () => {
      const model = await entry.loading.catch(() => undefined);
      if (!model) return;
      // A thread that does not end cleanly is gone all the same, and nobody is left to be told.
      await model.close().catch(() => undefined);
      deps.onUnload?.({ directory: entry.directory, precision: entry.precision, load: model.load() });
      forget(entry);
    })();
    return entry.closing;
  }

  /** The model's entry, held once more; loaded or loading. */
  async function admit(
    checkpoint: Checkpoint,
    options: OpenOptions,
    { signal, beside }: HoldOptions,
    deadline: number,
  ): Promise<Entry> {
    const key = keyOf(checkpoint, options);
    const base = baseOf(checkpoint, options);
    while (true) {
      const mapped = [...entries.values()].some((entry) => entry.base === base && !entry.closing);
      const bytes = mapped ? OVERHEAD_BYTES : estimateBytes(checkpoint, options);
      if (closed) throw draining();
      const known = entries.get(key);
      if (known && !known.closing) return take(known);
      // All wait for the same signal, so they look again in the order in which they came.
      const change = changed.promise;
      if (!known) {
        if (total(entries.values()) + bytes <= deps.budgetBytes) return take(load(key, checkpoint, options));
        refuseWhatNeverFits(key, bytes, options, beside);
        makeRoom(bytes);
      }
      const left = deadline - Date.now();
      if (left <= 0) throw busy(bytes);
      await within(change, left, signal);
    }
  }

  function take(entry: Entry): Entry {
    entry.held++;
    // Whoever deleted it was not the only one who uses it.
    entry.dropped = false;
    return entry;
  }

  function letGo(entry: Entry): void {
    entry.held--;
    entry.lastUsed = ++clock;
    if (entry.dropped && entry.held === 0) void unload(entry);
    notify();
  }

  /** Begins to unload what was used least recently, unless what is leaving already makes room enough. */
  function makeRoom(bytes: number): void {
    const staying = [...entries.values()].filter((entry) => !entry.closing);
    if (total(staying) + bytes <= deps.budgetBytes) return;
    const idle = staying.filter((entry) => entry.held === 0 && entry.pinnedBy.size === 0 && entry.model);
    const [oldest] = idle.sort((a, b) => a.lastUsed - b.lastUsed);
    if (oldest) void unload(oldest);
  }

  /** Waiting is pointless where what stays in any case leaves too little room. */
  function refuseWhatNeverFits(key: string, bytes: number, { precision }: OpenOptions, beside?: EngineModel): void {
    const allowed = `PRECEPTOR_MODEL_MEMORY allows ${gib(deps.budgetBytes)}`;
    const needed = `this model needs about ${gib(bytes)} at ${precision}`;
    if (bytes > deps.budgetBytes) {
      const error = fail("out_of_memory", `${needed}; ${allowed}. Raise it, or register the model at q8 or q4`);
      failures.set(key, error);
      throw error;
    }
    const staying = total(
      [...entries.values()].filter((entry) => entry.pinnedBy.size > 0 || (beside && entry.model === beside)),
    );
    if (staying + bytes <= deps.budgetBytes) return;
    throw fail(
      "out_of_memory",
      `${needed}, and ${gib(staying)} are taken by models that stay (pinned, or used by the same request); ${allowed}`,
    );
  }

  function busy(bytes: number): Error {
    const message =
      `this model needs about ${gib(bytes)}; models in use take ${gib(total(entries.values()))} of the ` +
      `${gib(deps.budgetBytes)} that PRECEPTOR_MODEL_MEMORY allows. Try again shortly`;
    return fail("model_loading", message, { retryAfterSeconds: RETRY_AFTER_SECONDS });
  }

  return {
    async hold(checkpoint, options, use = {}) {
      const deadline = Date.now() + waitMs;
      const entry = await admit(checkpoint, options, use, deadline);
      const release = once(() => letGo(entry));
      try {
        const model = await within(entry.loading, deadline - Date.now(), use.signal);
        if (closed) throw draining();
        if (model) return { model, release };
        throw fail("model_loading", "the model is still being loaded; try again shortly", {
          retryAfterSeconds: RETRY_AFTER_SECONDS,
        });
      } catch (error) {
        release();
        throw error;
      }
    },
    status(checkpoint, options) {
      const entry = of(checkpoint, options);
      if (!entry || entry.closing) return "unloaded";
      return entry.model ? "loaded" : "loading";
    },
    failure: (checkpoint, options) => failures.get(keyOf(checkpoint, options)),
    peek(checkpoint, options) {
      const entry = of(checkpoint, options);
      return entry?.closing ? undefined : entry?.model;
    },
    pin(checkpoint, options, by, pinned) {
      const entry = of(checkpoint, options);
      if (pinned) entry?.pinnedBy.add(by);
      else if (entry?.pinnedBy.delete(by)) notify();
    },
    async drop(checkpoint, options) {
      failures.delete(keyOf(checkpoint, options));
      const entry = of(checkpoint, options);
      if (!entry || entry.pinnedBy.size > 0) return;
      entry.dropped = true;
      if (entry.held > 0) return;
      const gone = unload(entry);
      // Whoever deletes a model need not wait until it has been loaded.
      if (entry.model) await gone;
    },
    loaded() {
      const all = [...entries.values()];
      const bytes = bytesOf(all);
      return all.flatMap(({ directory, precision, held, model }, i) =>
        model ? [{ directory, precision, bytes: bytes[i]!, held, ...model.load() }] : [],
      );
    },
    async close() {
      closed = true;
      notify();
      await Promise.all([...entries.values()].map(unload));
    },
  };
}

function baseOf({ directory, weightsHash }: Checkpoint, { precision, device }: OpenOptions): string {
  return [directory, weightsHash, precision, device].join("\n");
}

function keyOf(checkpoint: Checkpoint, options: OpenOptions): string {
  return `${baseOf(checkpoint, options)}\n${options.contextLength}`;
}

/** Bytes a model is expected to take before it has been loaded and measured. */
export function estimateBytes(checkpoint: Checkpoint, { precision }: Pick<OpenOptions, "precision">): number {
  return Math.ceil(checkpoint.parameters * BYTES_PER_WEIGHT[precision]) + OVERHEAD_BYTES;
}

function draining(): Error {
  return fail("draining", "the server is shutting down", { retryAfterSeconds: RETRY_AFTER_SECONDS });
}

function gib(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
