/** The models of one command, in memory: what the database is for a server. They are registered once and then only looked up. */
import type { ModelStore } from "../../db/model-store.ts";
import type { ModelRecord } from "../../db/records.ts";

export function createModelList(now: () => Date): ModelStore {
  const models = new Map<string, ModelRecord>();
  const never = async (): Promise<never> => {
    throw new Error("a command registers its models once and never changes them");
  };
  return {
    async insert({ id, role, body, format, metadata, pinned, ...given }) {
      if (models.has(id)) return undefined;
      const record: ModelRecord = {
        ...NOTHING,
        ...(Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as typeof given & {
          source: string;
        }),
        id,
        roles: [role],
        bodies: { [role]: body },
        formats: { [role]: format },
        metadata: metadata ?? {},
        pinned: pinned ?? false,
        createdAt: now(),
        updatedAt: now(),
      } as ModelRecord;
      models.set(id, record);
      return record;
    },
    find: async (id) => models.get(id),
    async findVersion(id, version) {
      const found = models.get(id);
      return found?.version === version ? { ...found, modelId: id } : undefined;
    },
    list: async () => ({ rows: [...models.values()], hasMore: false }),
    addRole: never,
    setBody: never,
    setMetadata: never,
    setPinned: never,
    addVersion: never,
    remove: never,
  };
}

const NOTHING = {
  version: 1,
  firstVersion: 1,
  adapter: null,
  adapterHash: null,
  weightsHash: null,
  tokenizerHash: null,
  contextLength: null,
  credential: null,
  tokenizer: null,
  tempered: null,
  deletedAt: null,
} as const;
