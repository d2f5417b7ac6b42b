/** Weights that learn, served as they are at this moment: saved and opened once per optimizer step, and only when somebody asks. */
import { rm } from "node:fs/promises";
import path from "node:path";
import { type Deferred, deferred } from "../deferred.ts";
import { once } from "../once.ts";

/** What a directory of saved weights was opened as. */
export interface Snapshot<T> {
  value: T;
  close(): Promise<void>;
}

export interface CurrentWeights<T> {
  /** The weights of this moment. They stay as they are until `release`, whatever is learnt meanwhile. */
  hold(): Promise<{ value: T; release(): void }>;
  /** The weights change: whoever asks from now on gets the next ones. */
  changed(): void;
  /** Ends what nobody holds; what is held goes when it is released. */
  close(): Promise<void>;
}

interface Entry<T> {
  opening: Promise<Snapshot<T>>;
  directory: string;
  holders: number;
  outdated: boolean;
  /** Outdated, and nobody holds it any more. */
  free: Deferred<void>;
}

export interface CurrentWeightsDeps<T> {
  /** Where the directories of the single steps are made. */
  directory: string;
  save(directory: string): Promise<void>;
  open(directory: string): Promise<Snapshot<T>>;
}

export function createCurrentWeights<T>({ directory, save, open }: CurrentWeightsDeps<T>): CurrentWeights<T> {
  let current: Entry<T> | undefined;
  let made = 0;
  /** The one before leaves first: two copies of a whole model need not fit into memory. */
  let gone: Promise<unknown> = Promise.resolve();

  function begin(): Entry<T> {
    const target = path.join(directory, `weights-${++made}`);
    const before = gone;
    const opening = save(target).then(async () => {
      await before;
      return open(target);
    });
    const entry: Entry<T> = { opening, directory: target, holders: 0, outdated: false, free: deferred() };
    // What failed is tried again by the next who asks.
    opening.catch(() => retire(entry));
    return entry;
  }

  function retire(entry: Entry<T>): void {
    if (entry.outdated) return;
    entry.outdated = true;
    if (current === entry) current = undefined;
    gone = Promise.all([gone, entry.free.promise.then(() => end(entry))]);
    freeIfUnused(entry);
  }

  function freeIfUnused({ outdated, holders, free }: Entry<T>): void {
    if (outdated && holders === 0) free.resolve();
  }

  /** Never rejects: a thread that does not end cleanly is gone all the same. */
  async function end(entry: Entry<T>): Promise<void> {
    const snapshot = await entry.opening.catch(() => undefined);
    await snapshot?.close().catch(() => undefined);
    await rm(entry.directory, { recursive: true, force: true }).catch(() => undefined);
  }

  return {
    async hold() {
      current ??= begin();
      const entry = current;
      entry.holders++;
      const release = once(() => {
        entry.holders--;
        freeIfUnused(entry);
      });
      try {
        return { value: (await entry.opening).value, release };
      } catch (error) {
        release();
        throw error;
      }
    },
    changed() {
      if (current) retire(current);
    },
    async close() {
      if (current) retire(current);
      await gone;
    },
  };
}
