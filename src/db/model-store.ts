import { and, eq, gte, isNotNull, isNull, type SQL, sql } from "drizzle-orm";
import type { Db } from "./database.ts";
import { guarded } from "./errors.ts";
import { readPage } from "./page.ts";
import type {
  ModelRecord,
  ModelRole,
  ModelVersionRecord,
  NewModel,
  Page,
  PageQuery,
  VersionChanges,
} from "./records.ts";
import { models, modelVersions } from "./schema/models.ts";

export interface ModelStore {
  /**
   * Registers a model. undefined: the id is in use. An id whose model was deleted may be registered anew: it goes on
   * with the next version number, so that `id@version` never means two things; the old versions stay readable.
   */
  insert(model: NewModel): Promise<ModelRecord | undefined>;
  find(id: string, options?: { includeDeleted?: boolean }): Promise<ModelRecord | undefined>;
  /** A version for reading, deleted models' included. It may be served if `version >= model.firstVersion`. */
  findVersion(id: string, version: number): Promise<ModelVersionRecord | undefined>;
  list(query: PageQuery & { role?: ModelRole | undefined }): Promise<Page<ModelRecord>>;
  /**
   * Gives an existing model its second role; no new version, since nothing that was made with it changes.
   * undefined: no such model, or it already has the role.
   */
  addRole(id: string, role: ModelRole, how: { format: unknown; body: unknown }): Promise<ModelRecord | undefined>;
  /** Replaces the registration body of a role that the model has; what its versions are made of does not change. */
  setBody(id: string, role: ModelRole, body: unknown): Promise<ModelRecord | undefined>;
  setMetadata(id: string, metadata: Record<string, string>): Promise<ModelRecord | undefined>;
  setPinned(id: string, pinned: boolean): Promise<ModelRecord | undefined>;
  /** A new current version that differs from the last one in `changes`. */
  addVersion(id: string, changes: VersionChanges): Promise<ModelRecord | undefined>;
  /** Hides the model; false if there is none. */
  remove(id: string): Promise<boolean>;
}

const ROLES: readonly ModelRole[] = ["teacher", "student"];
const bodyOf = { teacher: models.teacherBody, student: models.studentBody };

export function createModelStore(db: Db, now: () => Date = () => new Date()): ModelStore {
  const live = (id: string): SQL | undefined => and(eq(models.id, id), isNull(models.deletedAt));

  const selectModels = (from: Db = db) =>
    from
      .select({ model: models, version: modelVersions })
      .from(models)
      .innerJoin(modelVersions, and(eq(modelVersions.modelId, models.id), eq(modelVersions.version, models.version)));

  const find: ModelStore["find"] = async (id, { includeDeleted = false } = {}) => {
    const [row] = await guarded(selectModels().where(includeDeleted ? eq(models.id, id) : live(id)));
    return row && toModel(row);
  };

  const change = async (id: string, values: Partial<typeof models.$inferInsert>) => {
    const changed = await guarded(
      db
        .update(models)
        .set({ ...values, updatedAt: now() })
        .where(live(id))
        .returning({ id: models.id }),
    );
    return changed.length > 0 ? find(id) : undefined;
  };

  return {
    find,
    setBody: (id, role, body) => change(id, { [`${role}Body`]: body }),
    setMetadata: (id, metadata) => change(id, { metadata }),
    setPinned: (id, pinned) => change(id, { pinned }),

    insert: (model) =>
      guarded(
        db.transaction(async (tx) => {
          const at = now();
          const fresh = {
            pinned: model.pinned ?? false,
            metadata: model.metadata ?? {},
            teacherBody: model.role === "teacher" ? model.body : null,
            studentBody: model.role === "student" ? model.body : null,
            createdAt: at,
            updatedAt: at,
            deletedAt: null,
          };
          const next = sql`${models.version} + 1`;
          const [row] = await tx
            .insert(models)
            .values({ id: model.id, version: 1, firstVersion: 1, ...fresh })
            .onConflictDoUpdate({
              target: models.id,
              set: { ...fresh, version: next, firstVersion: next },
              setWhere: isNotNull(models.deletedAt),
            })
            .returning({ version: models.version });
          if (!row) return undefined;
          await tx.insert(modelVersions).values(firstVersion(model, row.version, at));
          const [made] = await selectModels(tx).where(eq(models.id, model.id));
          return toModel(made!);
        }),
      ),

    async findVersion(id, version) {
      const [row] = await guarded(
        db
          .select()
          .from(modelVersions)
          .where(and(eq(modelVersions.modelId, id), eq(modelVersions.version, version))),
      );
      return row && toVersion(row);
    },

    async list({ role, ...page }) {
      const { rows, hasMore } = await readPage(
        models,
        page,
        ({ beyond, orderBy, limit }) =>
          selectModels()
            .where(and(isNull(models.deletedAt), role && isNotNull(bodyOf[role]), beyond))
            .orderBy(...orderBy)
            .limit(limit),
        async (id) => (await find(id, { includeDeleted: true })) !== undefined,
      );
      return { rows: rows.map(toModel), hasMore };
    },

    addRole: (id, role, { format, body }) =>
      guarded(
        db.transaction(async (tx) => {
          const [row] = await tx
            .update(models)
            .set({ [`${role}Body`]: body, updatedAt: now() })
            .where(and(live(id), isNull(bodyOf[role])))
            .returning({ firstVersion: models.firstVersion });
          if (!row) return undefined;
          await tx
            .update(modelVersions)
            .set({ [`${role}Format`]: format })
            .where(and(eq(modelVersions.modelId, id), gte(modelVersions.version, row.firstVersion)));
          const [changed] = await selectModels(tx).where(eq(models.id, id));
          return toModel(changed!);
        }),
      ),

    addVersion: (id, changes) =>
      guarded(
        db.transaction(async (tx) => {
          const at = now();
          // Takes the row's lock first: of two that add a version at once the second sees the first one's.
          const [row] = await tx
            .update(models)
            .set({ version: sql`${models.version} + 1`, updatedAt: at })
            .where(live(id))
            .returning({ version: models.version });
          if (!row) return undefined;
          const [last] = await tx
            .select()
            .from(modelVersions)
            .where(and(eq(modelVersions.modelId, id), eq(modelVersions.version, row.version - 1)));
          await tx.insert(modelVersions).values({ ...last!, ...changes, version: row.version, createdAt: at });
          const [changed] = await selectModels(tx).where(eq(models.id, id));
          return toModel(changed!);
        }),
      ),

    async remove(id) {
      const at = now();
      const gone = await guarded(
        db.update(models).set({ deletedAt: at, updatedAt: at }).where(live(id)).returning({ id: models.id }),
      );
      return gone.length > 0;
    },
  };
}

function firstVersion(model: NewModel, version: number, createdAt: Date): typeof modelVersions.$inferInsert {
  return {
    modelId: model.id,
    version,
    source: model.source,
    adapter: model.adapter ?? null,
    adapterHash: model.adapterHash ?? null,
    weightsHash: model.weightsHash ?? null,
    tokenizerHash: model.tokenizerHash ?? null,
    precision: model.precision,
    device: model.device,
    contextLength: model.contextLength ?? null,
    credential: model.credential ?? null,
    tokenizer: model.tokenizer ?? null,
    tempered: model.tempered ?? null,
    [`${model.role}Format`]: model.format,
    createdAt,
  };
}

function toVersion(row: typeof modelVersions.$inferSelect): ModelVersionRecord {
  const { teacherFormat, studentFormat, ...rest } = row;
  return { ...rest, formats: perRole(teacherFormat, studentFormat) };
}

function toModel(row: { model: typeof models.$inferSelect; version: typeof modelVersions.$inferSelect }): ModelRecord {
  const { teacherBody, studentBody, ...model } = row.model;
  const { modelId: _, ...version } = toVersion(row.version);
  const bodies = perRole(teacherBody, studentBody);
  // The model's own fields come last: its createdAt is when it was registered.
  return { ...version, ...model, bodies, roles: ROLES.filter((role) => role in bodies) };
}

function perRole(teacher: unknown, student: unknown): Partial<Record<ModelRole, unknown>> {
  return {
    ...(teacher === null ? {} : { teacher }),
    ...(student === null ? {} : { student }),
  };
}
