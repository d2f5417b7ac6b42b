/**
 * Every request looks up its models, and a lookup takes milliseconds where the database runs in this process: the rows are
 * remembered. What this process changes is seen at once; what others change, after `maxAgeMs`.
 */
import type { ModelStore } from "./model-store.ts";
import type { ModelRecord, ModelVersionRecord } from "./records.ts";

/** Rows remembered: more models than anybody registers, a few MB. */
const MAX_ROWS = 4096;

interface Row<T> {
  value: T;
  readAt: number;
}

export interface ModelCacheOptions {
  /** How long others' changes may go unnoticed; Infinity where there are no others. */
  maxAgeMs: number;
  /** Milliseconds of a clock that never goes back. */
  now: () => number;
}

export function withModelCache(store: ModelStore, { maxAgeMs, now }: ModelCacheOptions): ModelStore {
  const models = new Map<string, Row<ModelRecord>>();
  const versions = new Map<string, Row<ModelVersionRecord>>();
  /** Rises with every change of ours: what was read before it is not remembered after it. */
  let changes = 0;

  async function remember<T>(
    rows: Map<string, Row<T>>,
    key: string,
    read: () => Promise<T | undefined>,
  ): Promise<T | undefined> {
    const known = rows.get(key);
    if (known && now() - known.readAt < maxAgeMs) return known.value;
    const [before, readAt] = [changes, now()];
    const value = await read();
    rows.delete(key);
    // What is not there is asked for anew each time: somebody may be about to register it.
    if (value === undefined || before !== changes) return value;
    rows.set(key, { value, readAt });
    if (rows.size > MAX_ROWS) rows.delete(rows.keys().next().value as string);
    return value;
  }

  /** Changes are rare, so all is forgotten: before, for those who read meanwhile, and after. */
  const forgetting =
    <A extends unknown[], R>(change: (...args: A) => Promise<R>) =>
    async (...args: A): Promise<R> => {
      const forget = (): void => {
        changes++;
        models.clear();
        versions.clear();
      };
      forget();
      try {
        return await change(...args);
      } finally {
        forget();
      }
    };

  return {
    find: (id, options) =>
      options?.includeDeleted ? store.find(id, options) : remember(models, id, () => store.find(id)),
    findVersion: (id, version) => remember(versions, `${id}@${version}`, () => store.findVersion(id, version)),
    list: store.list,
    insert: forgetting(store.insert),
    addRole: forgetting(store.addRole),
    setBody: forgetting(store.setBody),
    setMetadata: forgetting(store.setMetadata),
    setPinned: forgetting(store.setPinned),
    addVersion: forgetting(store.addVersion),
    remove: forgetting(store.remove),
  };
}
