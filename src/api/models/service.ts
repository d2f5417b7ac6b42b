import { mapLimited } from "../../concurrency.ts";
import type { ModelStore } from "../../db/model-store.ts";
import type { ModelRecord, ModelRole, PageQuery } from "../../db/records.ts";
import type { Engine, OpenOptions, Precision } from "../../engine/engine.ts";
import type { Placement } from "../../engine/placement.ts";
import { fail } from "../../errors.ts";
import { unixSeconds } from "../../http/schemas.ts";
import type { CheckpointRecord } from "../../jobs/records.ts";
import type { Checkpoint } from "../../model/checkpoint.ts";
import { isRemoteSource } from "../../model/source.ts";
import { within } from "../../within.ts";
import { createAbilityCheck } from "./able.ts";
import { type Published, type PublishRequest, publishCheckpoint, versionOfCheckpoint } from "./checkpoints.ts";
import { isShared } from "./connections.ts";
import { describeModel } from "./describe.ts";
import { refuseBadChanges, refuseBadFields } from "./fields.ts";
import { type Effort, isCheckpointId, type Preparation, type Prepared } from "./preparation.ts";
import { compareRegistration, type Outcome, type StoredBody } from "./registration.ts";
import type { HeldModel, ModelRegistry, ModelSummary, ModelText, RegistryHoldOptions } from "./registry.ts";
import type { ModelResource, RegisterModel, UpdateModel } from "./schemas.ts";
import { REGISTERED_NAME, type TrainingBase, type TrainingBases, unregistered } from "./training-base.ts";
import { formatOf, type ModelResources, openOptions, resolveDevice, type Version } from "./version.ts";

export interface ModelService extends ModelRegistry, TrainingBases {
  /**
   * `created` is false when the same body was registered before. Throws `model_exists` (409) for another body, and what
   * is wrong with the model. `found`: the server registers it by itself; a caller's registration takes its place.
   */
  register(
    role: ModelRole,
    body: RegisterModel,
    how?: { found?: boolean },
  ): Promise<{ resource: ModelResource; created: boolean }>;
  get(role: ModelRole, name: string): Promise<ModelResource>;
  page(role: ModelRole, query: PageQuery): Promise<{ data: ModelResource[]; hasMore: boolean }>;
  update(role: ModelRole, id: string, changes: UpdateModel): Promise<ModelResource>;
  /** Hides the model, both its roles. */
  remove(role: ModelRole, id: string): Promise<void>;
  /** Whether this id is, or ever was, registered. */
  wasRegistered(id: string): Promise<boolean>;
  /** Version and files of a name, nothing loaded. Errors as `hold`. */
  prepare(
    name: string,
    options: { role: ModelRole; param?: string; signal?: AbortSignal | undefined },
  ): Promise<{ version: Version; prepared: Prepared; contextLength: number | null }>;
  /** How a version is opened. */
  openOptions(version: Version, checkpoint: Checkpoint): OpenOptions;
  /** Makes a checkpoint the newest version of the model it was trained from, or of another; doing it again changes nothing. */
  publish(request: PublishRequest): Promise<Published>;
  /** Models whose current version is made of a checkpoint. */
  madeOf(checkpoint: string): Promise<string[]>;
  /** All models with their roles and status, for the start page. */
  overview(): Promise<{ id: string; roles: ModelRole[]; status: ModelResource["status"] }[]>;
}

export interface ModelServiceDeps {
  store: ModelStore;
  preparation: Preparation;
  placement: Placement;
  engine: Pick<Engine, "capabilities" | "check">;
  resources: ModelResources;
  /** Deleted ones too. */
  findCheckpoint(id: string): Promise<CheckpointRecord | undefined>;
  /** Ids of unfinished jobs that name a model. */
  jobsOn(model: string): Promise<string[]>;
}

/** How long a registration waits for a download or conversion before it answers `loading`. */
const REGISTER_WAIT_MS = 3_000;
/** How long a request waits for what its model needs: a download takes its own time, the rest has an end (api.md: 120 s). */
const USE_WAIT_MS = { none: 120_000, conversion: 120_000, download: 3_000, connection: 120_000 } as const;
/** A registration answers with what its server can do, unless that takes longer: then it answers `loading`. */
const CONNECT_WAIT_MS = 30_000;
const RETRY_AFTER_SECONDS = 5;
const IN_PROGRESS: Readonly<Record<Effort, string>> = {
  none: "read",
  conversion: "converted",
  download: "downloaded",
  connection: "reached and probed",
};
/** Headers read at once for a list: enough to keep a disk busy, few enough for a network file system. */
const PARALLEL_READS = 8;
/** An id that is registered and deleted by others in turn, this often in a row, is not worth another look. */
const REGISTER_TRIES = 3;
/** Rows per query where all are wanted: few round trips, little memory. */
const PAGE = 100;

export function createModelService(deps: ModelServiceDeps): ModelService {
  const { store, preparation, placement, engine, resources } = deps;
  const describeDeps = { preparation, placement, capabilities: engine.capabilities, resources };
  const describe = (role: ModelRole, model: ModelRecord, version: Version = model): Promise<ModelResource> =>
    describeModel(describeDeps, role, model, version);

  const requireAble = createAbilityCheck({ preparation, capabilities: engine.capabilities, all });

  /** The model and version a name speaks of: `id`, `id@3`. Versions of a deleted model are not served. */
  async function find(
    name: string,
    role: ModelRole | undefined,
    param: string | undefined,
  ): Promise<[ModelRecord, Version]> {
    const at = name.indexOf("@");
    const id = at < 0 ? name : name.slice(0, at);
    const wanted = at < 0 ? "latest" : name.slice(at + 1);
    const model = await store.find(id);
    if (!model || (role && !model.roles.includes(role))) throw notRegistered(id, role, model, param);
    if (wanted === "latest") return [model, model];
    if (isCheckpointId(wanted)) {
      const found = await versionOfCheckpoint({ store, findCheckpoint: deps.findCheckpoint }, model, wanted, param);
      return [model, found];
    }
    const number = /^\d{1,9}$/.test(wanted) ? Number(wanted) : Number.NaN;
    const version = number >= model.firstVersion ? await store.findVersion(id, number) : undefined;
    if (version) return [model, { ...version, id }];
    const shown = JSON.stringify(wanted.slice(0, 80));
    throw fail("model_not_found", `${id} has no version ${shown}; its current one is ${model.version}`, { param });
  }

  async function prepareNow(version: Version, signal?: AbortSignal, fresh = false): Promise<Prepared> {
    const ready = preparation.prepared(version);
    if (ready && !fresh) return ready;
    const effort = await preparation.effort(version);
    // What was downloaded does not change, and asking the hub again would take its time again.
    const again = fresh && effort !== "download";
    const done = await within(preparation.prepare(version, { fresh: again }), USE_WAIT_MS[effort], signal);
    if (done) return done;
    throw fail("model_loading", `${version.id} is being ${IN_PROGRESS[effort]}; try again shortly`, {
      retryAfterSeconds: RETRY_AFTER_SECONDS,
    });
  }

  async function hold(
    name: string,
    { role, param, signal, beside, precision, needs = {} }: RegistryHoldOptions = {},
  ): Promise<HeldModel> {
    const [model, version] = await find(name, role, param);
    const prepared = await prepareNow(version, signal);
    await requireAble(version, prepared, { role, param, needs });
    const { text, adapter } = prepared;
    const { id, version: number, trained } = version;
    const common = { id, version: number, checkpoint: trained, text, adapter, format: formatOf(version, role) };
    if (prepared.kind === "remote") {
      const { model: engine, eosIds } = prepared;
      return { ...common, engine, contextLength: engine.contextLength, eosIds, release: prepared.hold() };
    }
    const { checkpoint } = prepared;
    const opened = openOptions(precision ? { ...version, precision } : version, checkpoint, resources);
    const held = await placement.hold(checkpoint, opened, { signal, beside: beside?.engine });
    if (!precision) placement.pin(checkpoint, opened, model.id, model.pinned);
    return {
      ...common,
      engine: held.model,
      contextLength: held.model.contextLength,
      eosIds: [...new Set([...checkpoint.eosIds, ...text.eosIds])],
      release: held.release,
    };
  }

  async function trainingBase(
    name: string,
    { adapter, signal }: { adapter: string | null; signal: AbortSignal },
  ): Promise<TrainingBase> {
    const isId = REGISTERED_NAME.test(name) && (await store.find(name.split("@")[0]!)) !== undefined;
    const version = isId ? (await find(name, undefined, "model"))[1] : unregistered(name, adapter);
    if (isRemoteSource(version.source)) throw notTrainedHere(name);
    const { precision } = TRAINED_AS;
    await engine.check({ precision, device: resolveDevice(version.device) });
    // Files that nobody registered may have changed since they were last read.
    const wanted = { ...version, adapter: adapter ?? version.adapter };
    const fresh = !isId || adapter !== null;
    const prepared = await prepareNow(wanted, signal, fresh);
    if (prepared.kind === "remote") throw notTrainedHere(name);
    const { checkpoint, text } = prepared;
    return {
      registered: isId ? { id: version.id, version: version.version } : null,
      checkpoint,
      text,
      adapter: prepared.adapter,
      adapterSource: wanted.adapter,
      serving: openOptions({ ...version, precision }, checkpoint, resources),
      eosIds: [...new Set([...checkpoint.eosIds, ...text.eosIds])],
    };
  }

  /** Checks a version before it is written down; a download or conversion goes on behind the answer. */
  async function check(version: Version): Promise<void> {
    if (!isRemoteSource(version.source)) {
      // What "auto" stands for is not known before the files are there; it is never what the device lacks.
      const precision = version.precision === "auto" ? "fp32" : (version.precision as Precision);
      await engine.check({ precision, device: resolveDevice(version.device) });
    }
    try {
      const effort = await preparation.effort(version);
      const work = preparation.prepare(version, { fresh: true });
      const waitMs = effort === "connection" ? CONNECT_WAIT_MS : REGISTER_WAIT_MS;
      await (effort === "none" ? work : within(work, waitMs));
    } catch (error) {
      preparation.forget(version);
      throw error;
    }
  }

  async function insert(role: ModelRole, body: StoredBody, version: Version): Promise<ModelRecord | undefined> {
    const prepared = preparation.prepared(version);
    return store.insert({
      id: body.id,
      role,
      format: body.format,
      body,
      source: body.model,
      precision: body.precision,
      device: body.device,
      adapter: version.adapter,
      adapterHash: prepared?.adapter?.hash ?? null,
      weightsHash: prepared?.kind === "checkpoint" ? prepared.checkpoint.weightsHash : null,
      tokenizerHash: prepared?.text.tokenizerHash ?? null,
      contextLength: version.contextLength,
      credential: body.credential ?? null,
      tokenizer: body.tokenizer ?? null,
      tempered: body.tempered ?? null,
      pinned: body.pinned,
      metadata: body.metadata,
    });
  }

  /** Gives an id its second role. Metadata and pinning belong to the model: what comes later counts where it says something. */
  async function join(role: ModelRole, body: StoredBody): Promise<ModelRecord | undefined> {
    let joined = await store.addRole(body.id, role, { format: body.format, body });
    if (joined && Object.keys(body.metadata).length > 0) joined = await store.setMetadata(body.id, body.metadata);
    if (joined && body.pinned) joined = await store.setPinned(body.id, true);
    return joined;
  }

  /** Roles of an id share one model, and only its files say what precision "auto" is: a new role waits for them. */
  async function compare(role: ModelRole, body: RegisterModel, known: ModelRecord): Promise<Outcome> {
    const { checkpoint } = await preparation.look(known);
    const surroundings = { locate: preparation.locate, resources, checkpoint };
    const outcome = await compareRegistration(known, role, body, surroundings);
    const undecided =
      outcome.kind === "conflict" &&
      outcome.fields.join() === "precision" &&
      known.bodies[role] === undefined &&
      [body.precision, known.precision].includes("auto");
    if (!undecided || checkpoint) return outcome;
    const prepared = await prepareNow(known);
    if (prepared.kind === "remote") return outcome;
    return compareRegistration(known, role, body, { ...surroundings, checkpoint: prepared.checkpoint });
  }

  /** What a server can do now, for the answer; one that is not well at this moment is registered all the same. */
  async function lookAgain(version: Version): Promise<void> {
    if (!isRemoteSource(version.source)) return;
    await within(preparation.prepare(version, { fresh: true }), CONNECT_WAIT_MS).catch(() => undefined);
  }

  /** Carries out what a registration of a known id comes to; undefined: somebody changed it meanwhile, look again. */
  async function registerAgain(
    role: ModelRole,
    body: StoredBody,
    known: ModelRecord,
  ): Promise<{ model: ModelRecord; created: boolean } | undefined> {
    const { found: _, ...wanted } = body;
    const outcome = await compare(role, wanted, known);
    switch (outcome.kind) {
      case "same": {
        await lookAgain(known);
        const claimed = outcome.claim ? await store.setBody(body.id, role, body) : known;
        return claimed && { model: claimed, created: false };
      }
      case "join": {
        const model = await join(role, body);
        return model && { model, created: true };
      }
      case "replace": {
        const version = firstVersion(role, body);
        await check(version);
        await store.remove(body.id);
        let model = await insert(role, body, version);
        for (const [other, theirs] of outcome.others) {
          model = (await store.addRole(body.id, other, { format: theirs.format, body: theirs })) ?? model;
        }
        return model && { model, created: true };
      }
      case "conflict":
        throw fail(
          "model_exists",
          `${body.id} is registered with another ${outcome.fields.join(", ")}; choose another id, or delete it first ` +
            "(both roles of an id share one model)",
          { param: "id" },
        );
    }
  }

  async function all(): Promise<ModelRecord[]> {
    const models: ModelRecord[] = [];
    for (let after: string | undefined; ; after = models.at(-1)?.id) {
      const { rows, hasMore } = await store.list({ after, limit: PAGE, order: "asc" });
      models.push(...rows);
      if (!hasMore) return models;
    }
  }

  /** As far as it is known without a download, a conversion or a question to a server. */
  async function contextOf(version: Version): Promise<number | null> {
    const prepared = preparation.prepared(version);
    if (prepared?.kind === "remote") return prepared.model.contextLength;
    if (isRemoteSource(version.source)) return version.contextLength;
    const { checkpoint } = await preparation.look(version);
    return checkpoint ? openOptions(version, checkpoint, resources).contextLength : version.contextLength;
  }

  return {
    hold,
    trainingBase,

    async prepare(name, { role, param, signal }) {
      const [, version] = await find(name, role, param);
      const prepared = await prepareNow(version, signal);
      return { version, prepared, contextLength: await contextOf(version) };
    },

    async madeOf(checkpoint) {
      const made = (await all()).filter(({ source, adapter }) => source === checkpoint || adapter === checkpoint);
      return made.map(({ id, version }) => `${id}@${version}`);
    },

    openOptions: (version, checkpoint) => openOptions(version, checkpoint, resources),

    async publish(request) {
      const [, version] = await find(request.model, request.role, "model");
      return publishCheckpoint(store, version, request);
    },

    async text(name, { role, param, needs = {} } = {}): Promise<ModelText> {
      const [, version] = await find(name, role, param);
      const prepared = await prepareNow(version);
      await requireAble(version, prepared, { role, param, needs });
      return {
        id: version.id,
        version: version.version,
        checkpoint: version.trained,
        text: prepared.text,
        format: formatOf(version, role),
        ...(prepared.kind === "remote"
          ? { contextLength: prepared.model.contextLength, vocabSize: prepared.model.vocabSize }
          : {
              contextLength: openOptions(version, prepared.checkpoint, resources).contextLength,
              vocabSize: prepared.checkpoint.config.vocabSize,
            }),
      };
    },

    async list(): Promise<ModelSummary[]> {
      return mapLimited(await all(), PARALLEL_READS, async (model) => ({
        id: model.id,
        created_at: unixSeconds(model.createdAt),
        context_length: await contextOf(model),
      }));
    },

    async overview() {
      return mapLimited(await all(), PARALLEL_READS, async (model) => {
        const { status } = await describe(model.roles[0] as ModelRole, model);
        return { id: model.id, roles: model.roles, status };
      });
    },

    wasRegistered: async (id) => (await store.find(id, { includeDeleted: true })) !== undefined,

    async register(role, body, { found = false } = {}) {
      refuseBadFields(role, body);
      const stored: StoredBody = found ? { ...body, found: true } : body;
      const version = firstVersion(role, body);
      for (let tries = 0; tries < REGISTER_TRIES; tries++) {
        const known = await store.find(body.id);
        if (!known) await check(version);
        const inserted = known ? undefined : await insert(role, stored, version);
        if (inserted) return { resource: await describe(role, inserted), created: true };
        const done = known && (await registerAgain(role, stored, known));
        if (done) return { resource: await describe(role, done.model), created: done.created };
      }
      throw fail("conflict", `${body.id} is being registered and deleted by others at this moment; try again`);
    },

    async get(role, name) {
      const [model, version] = await find(name, role, undefined);
      return describe(role, model, version);
    },

    async page(role, query) {
      const { rows, hasMore } = await store.list({ ...query, role });
      return { data: await mapLimited(rows, PARALLEL_READS, (model) => describe(role, model)), hasMore };
    },

    async update(role, id, changes) {
      const { adapter, metadata, pinned } = changes;
      const [before] = await find(id, role, undefined);
      refuseBadChanges(before.source, changes);
      const next = adapter === undefined || adapter === before.adapter ? undefined : { ...before, adapter };
      // What can be refused comes first, so that a refused request changes nothing.
      if (next) await check(next);
      let model: ModelRecord | undefined = before;
      if (metadata) model = await store.setMetadata(id, metadata);
      if (model && pinned !== undefined) model = await store.setPinned(id, pinned);
      if (model && next) {
        const adapterHash = preparation.prepared(next)?.adapter?.hash ?? null;
        model = await store.addVersion(id, { adapter: next.adapter, adapterHash });
      }
      if (!model) throw notRegistered(id, role, undefined, undefined);
      const known = preparation.prepared(before);
      if (known?.kind === "checkpoint" && pinned !== undefined) {
        placement.pin(known.checkpoint, openOptions(before, known.checkpoint, resources), id, pinned);
      }
      return describe(role, model);
    },

    async remove(role, id) {
      const [model] = await find(id, role, undefined);
      const [job] = await deps.jobsOn(id);
      if (job) throw fail("conflict", `the job ${job} works on ${id}; cancel it first, or wait for its end`);
      if (!(await store.remove(id))) throw notRegistered(id, role, undefined, undefined);
      const prepared = preparation.prepared(model);
      const checkpoint = prepared?.kind === "checkpoint" ? prepared.checkpoint : undefined;
      const opened = checkpoint && openOptions(model, checkpoint, resources);
      if (checkpoint && opened) placement.pin(checkpoint, opened, id, false);
      // Another id may use the same files, or the same connection.
      if ((await all()).some((other) => isShared(other, model))) return;
      preparation.forgetShared(model);
      if (checkpoint && opened) await placement.drop(checkpoint, opened);
    },
  };
}

/** Gradients are taken in single precision, and what is sampled must be what they belong to. */
const TRAINED_AS = { precision: "fp32" } as const satisfies Pick<Version, "precision">;

function notTrainedHere(name: string): Error {
  return fail(
    "unsupported_by_backend",
    `${name.slice(0, 80)} is loaded by another server, and only models that this server loads itself can be trained`,
    { param: "model" },
  );
}

function firstVersion(role: ModelRole, body: RegisterModel): Version {
  return {
    id: body.id,
    version: 1,
    source: body.model,
    adapter: body.adapter ?? null,
    precision: body.precision,
    device: body.device,
    contextLength: body.context_length ?? null,
    credential: body.credential ?? null,
    tokenizer: body.tokenizer ?? null,
    tempered: body.tempered ?? null,
    weightsHash: null,
    adapterHash: null,
    tokenizerHash: null,
    formats: { [role]: body.format },
  };
}

function notRegistered(
  id: string,
  role: ModelRole | undefined,
  model: ModelRecord | undefined,
  param: string | undefined,
): Error {
  const shown = JSON.stringify(id.slice(0, 80));
  const what = role ?? "model";
  const message = model
    ? `${shown} is registered as a ${model.roles.join(" and ")} only; POST /v1/${what}s gives it this role too`
    : `no ${what} ${shown} is registered; POST /v1/${what}s registers one, GET /v1/models lists all`;
  return fail("model_not_found", message, { param });
}
