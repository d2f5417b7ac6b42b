import type { ModelStore } from "../../db/model-store.ts";
import type { ModelRecord, ModelRole, PageQuery } from "../../db/records.ts";
import type { Capabilities, OpenOptions, Precision } from "../../engine/engine.ts";
import type { Placement } from "../../engine/placement.ts";
import { fail, PreceptorError } from "../../errors.ts";
import { unixSeconds } from "../../http/schemas.ts";
import type { Checkpoint } from "../../model/checkpoint.ts";
import { type FormatSpec, formatProblem } from "../../rlt/formats.ts";
import type { Preparation, Prepared, VersionSource } from "./preparation.ts";
import type { HeldModel, ModelRegistry, ModelSummary, ModelText } from "./registry.ts";
import type { ModelResource, RegisterModel, UpdateModel } from "./schemas.ts";

export interface ModelService extends ModelRegistry {
  /** `created` is false when the same body was registered before. Throws `model_exists` (409) for another body. */
  register(role: ModelRole, body: RegisterModel): Promise<{ resource: ModelResource; created: boolean }>;
  get(role: ModelRole, name: string): Promise<ModelResource>;
  page(role: ModelRole, query: PageQuery): Promise<{ data: ModelResource[]; hasMore: boolean }>;
  update(role: ModelRole, id: string, changes: UpdateModel): Promise<ModelResource>;
  remove(role: ModelRole, id: string): Promise<void>;
  /** All models with their roles and status, for the start page. */
  overview(): Promise<{ id: string; roles: ModelRole[]; status: ModelResource["status"] }[]>;
}

export interface ModelServiceDeps {
  store: ModelStore;
  preparation: Preparation;
  placement: Placement;
  /** What an unloaded model will be able to do. */
  capabilities: Capabilities;
  threads: number;
}

/** How long a registration waits for a download or conversion before it answers `loading`. */
const REGISTER_WAIT_MS = 3_000;
const RETRY_AFTER_SECONDS = 5;

/** One registered version, as stored. */
interface Version extends VersionSource {
  id: string;
  version: number;
  precision: string;
  device: string;
  contextLength: number | null;
  formats: Partial<Record<ModelRole, unknown>>;
}

export function createModelService(deps: ModelServiceDeps): ModelService {
  const { store, preparation, placement } = deps;

  function openOptions(version: Version, checkpoint: Checkpoint): OpenOptions {
    return {
      precision: resolvePrecision(version.precision),
      contextLength: version.contextLength ?? defaultContext(checkpoint),
      threads: deps.threads,
      device: version.device === "auto" ? "cpu" : version.device,
    };
  }

  /** The model and version a name speaks of: `id`, `id@3`. Versions of a deleted model are not served. */
  async function find(
    name: string,
    role: ModelRole | undefined,
    param: string | undefined,
  ): Promise<[ModelRecord, Version]> {
    const [id = "", wanted] = name.split("@", 2);
    const model = await store.find(id);
    if (!model || (role && !model.roles.includes(role))) throw notRegistered(id, role, model, param);
    if (wanted === undefined || wanted === "latest") return [model, model];
    const number = /^\d{1,9}$/.test(wanted) ? Number(wanted) : Number.NaN;
    const version = number >= model.firstVersion ? await store.findVersion(id, number) : undefined;
    if (!version) {
      throw fail(
        "model_not_found",
        `${id} has no version ${JSON.stringify(wanted)}; its current one is ${model.version}`,
        {
          param,
        },
      );
    }
    return [model, { ...version, id }];
  }

  async function prepareNow(version: Version): Promise<Prepared> {
    if (!preparation.isLong(version)) return preparation.prepare(version);
    const known = preparation.peek(version).state;
    const work = preparation.prepare(version);
    const done = await within(work, known === "pending" ? 0 : REGISTER_WAIT_MS);
    if (done) return done;
    throw fail("model_loading", `${version.id} is being downloaded or converted; try again shortly`, {
      retryAfterSeconds: RETRY_AFTER_SECONDS,
    });
  }

  async function hold(
    name: string,
    options: { role?: ModelRole; param?: string; signal?: AbortSignal | undefined } = {},
  ): Promise<HeldModel> {
    const [model, version] = await find(name, options.role, options.param);
    const { checkpoint, text, adapter } = await prepareNow(version);
    const opened = openOptions(version, checkpoint);
    const held = await placement.hold(checkpoint, opened, { pinned: model.pinned, signal: options.signal });
    return {
      id: version.id,
      version: version.version,
      engine: held.model,
      text,
      adapter,
      format: formatOf(version, options.role),
      contextLength: held.model.contextLength,
      eosIds: [...new Set([...checkpoint.eosIds, ...text.eosIds])],
      release: held.release,
    };
  }

  async function describe(role: ModelRole, model: ModelRecord, version: Version = model): Promise<ModelResource> {
    let { state, prepared, error } = preparation.peek(version);
    // After a restart nothing is prepared: headers are read again. Downloads are not begun for a look at a list.
    if (state === "unknown" && !preparation.isLong(version)) {
      prepared = await preparation.prepare(version).catch((reason: unknown) => {
        error = reason;
        return undefined;
      });
    }
    const opened = prepared && openOptions(version, prepared.checkpoint);
    const loaded = prepared && opened ? placement.status(prepared.checkpoint, opened) : "unloaded";
    const engine = prepared && opened ? placement.peek(prepared.checkpoint, opened) : undefined;
    return {
      id: model.id,
      object: role,
      created_at: unixSeconds(model.createdAt),
      version: version.version,
      status: statusOf(state, loaded, error),
      model: version.source,
      adapter: version.adapter,
      format: formatOf(version, role) as ModelResource["format"],
      precision: resolvePrecision(version.precision),
      device: version.device === "auto" ? "cpu" : version.device,
      context_length: version.contextLength ?? (prepared ? defaultContext(prepared.checkpoint) : null),
      parameters: prepared?.checkpoint.parameters ?? null,
      weights_hash: prepared?.checkpoint.weightsHash ?? null,
      adapter_hash: prepared?.adapter?.hash ?? null,
      tokenizer_hash: prepared?.text.tokenizerHash ?? null,
      capabilities: engine?.capabilities ?? deps.capabilities,
      pinned: model.pinned,
      ...(error === undefined ? {} : { error: bodyOf(error) }),
      metadata: model.metadata,
    };
  }

  /** Checks a version before it is written down; a download goes on behind the answer. */
  async function check(version: Version): Promise<void> {
    const work = preparation.prepare(version);
    await (preparation.isLong(version) ? within(work, REGISTER_WAIT_MS) : work);
  }

  async function conflict(role: ModelRole, body: RegisterModel, known: ModelRecord): Promise<ModelRecord> {
    const same = (a: unknown, b: unknown): boolean => canonical(a) === canonical(b);
    if (known.roles.includes(role)) {
      if (same(known.bodies[role], body)) return known;
    } else if (same(shared(Object.values(known.bodies)[0]), shared(body))) {
      const joined = await store.addRole(body.id, role, { format: body.format, body });
      return joined ?? conflict(role, body, (await store.find(body.id)) as ModelRecord);
    }
    throw fail(
      "model_exists",
      `${body.id} is registered with other settings; choose another id, or delete it first (both roles of an id share one model)`,
      { param: "id" },
    );
  }

  async function all(): Promise<ModelRecord[]> {
    const models: ModelRecord[] = [];
    for (let after: string | undefined; ; after = models.at(-1)?.id) {
      const { rows, hasMore } = await store.list({ after, limit: PAGE, order: "asc" });
      models.push(...rows);
      if (!hasMore) return models;
    }
  }

  return {
    hold,

    async text(name, options = {}): Promise<ModelText> {
      const [, version] = await find(name, options.role, options.param);
      const { checkpoint, text } = await prepareNow(version);
      return {
        id: version.id,
        version: version.version,
        text,
        format: formatOf(version, options.role),
        contextLength: openOptions(version, checkpoint).contextLength,
        vocabSize: checkpoint.config.vocabSize,
      };
    },

    async list(): Promise<ModelSummary[]> {
      return (await all()).map((model) => ({ id: model.id, created_at: unixSeconds(model.createdAt) }));
    },

    async overview() {
      return Promise.all(
        (await all()).map(async (model) => {
          const { status } = await describe(model.roles[0] as ModelRole, model);
          return { id: model.id, roles: model.roles, status };
        }),
      );
    },

    async register(role, body) {
      if (typeof body.format !== "string") {
        const wrong = formatProblem(body.format, role);
        if (wrong)
          throw fail("invalid_value", `format.${wrong.field}: ${wrong.problem}`, { param: `format.${wrong.field}` });
      }
      const known = await store.find(body.id);
      if (known) return { resource: await describe(role, await conflict(role, body, known)), created: false };
      const version: Version = {
        id: body.id,
        version: 1,
        source: body.model,
        adapter: body.adapter ?? null,
        precision: body.precision,
        device: body.device,
        contextLength: body.context_length ?? null,
        formats: { [role]: body.format },
      };
      await check(version);
      const prepared = preparation.peek(version).prepared;
      const inserted = await store.insert({
        id: body.id,
        role,
        format: body.format,
        body,
        source: body.model,
        precision: body.precision,
        device: body.device,
        adapter: version.adapter,
        adapterHash: prepared?.adapter?.hash ?? null,
        weightsHash: prepared?.checkpoint.weightsHash ?? null,
        tokenizerHash: prepared?.text.tokenizerHash ?? null,
        contextLength: version.contextLength,
        credential: body.credential ?? null,
        pinned: body.pinned,
        metadata: body.metadata,
      });
      if (inserted) return { resource: await describe(role, inserted), created: true };
      // Somebody registered the same id meanwhile.
      const winner = await store.find(body.id);
      if (!winner) throw fail("conflict", `${body.id} was registered and deleted at the same moment; try again`);
      return { resource: await describe(role, await conflict(role, body, winner)), created: false };
    },

    async get(role, name) {
      const [model, version] = await find(name, role, undefined);
      return describe(role, model, version);
    },

    async page(role, query) {
      const { rows, hasMore } = await store.list({ ...query, role });
      return { data: await Promise.all(rows.map((model) => describe(role, model))), hasMore };
    },

    async update(role, id, changes) {
      let [model] = await find(id, role, undefined);
      if (changes.metadata) model = (await store.setMetadata(id, changes.metadata)) ?? model;
      if (changes.pinned !== undefined) model = (await store.setPinned(id, changes.pinned)) ?? model;
      if (changes.adapter !== undefined && changes.adapter !== model.adapter) {
        const next = { ...model, adapter: changes.adapter };
        await check(next);
        const adapterHash = preparation.peek(next).prepared?.adapter?.hash ?? null;
        model = (await store.addVersion(id, { adapter: changes.adapter, adapterHash })) ?? model;
      }
      return describe(role, model);
    },

    async remove(role, id) {
      const [model] = await find(id, role, undefined);
      const { prepared } = preparation.peek(model);
      await store.remove(id);
      if (prepared) await placement.drop(prepared.checkpoint, openOptions(model, prepared.checkpoint));
    },
  };
}

/**
 * The checkpoint's own context. Those made for fewer than 2,048 positions are toys (tests, miniatures), and the stratos
 * prompts alone take 800 of their tokens: rotary positions have no table that ends, so they are served beyond.
 */
function defaultContext({ config }: Checkpoint): number {
  return config.maxPositions < TOY_POSITIONS ? TOY_CONTEXT : config.maxPositions;
}

const TOY_POSITIONS = 2_048;
const TOY_CONTEXT = 4_096;

/** Rows per query where all are wanted: few round trips, little memory. */
const PAGE = 100;

/** fp32 gives the numbers of the reference implementations; smaller precisions are asked for by name. */
function resolvePrecision(precision: string): Precision {
  return precision === "auto" ? "fp32" : (precision as Precision);
}

/** A model with both roles may be named without one (the OpenAI routes): the teacher's format then. */
function formatOf(version: Version, role: ModelRole | undefined): FormatSpec {
  const { teacher, student } = version.formats;
  return ((role ? version.formats[role] : undefined) ?? teacher ?? student ?? "stratos") as FormatSpec;
}

function statusOf(
  state: "unknown" | "pending" | "ready" | "failed",
  loaded: "loaded" | "loading" | "unloaded",
  error: unknown,
): ModelResource["status"] {
  if (error !== undefined) return "failed";
  if (state === "pending" || loaded === "loading") return "loading";
  return loaded === "loaded" ? "ready" : "unloaded";
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

function bodyOf(error: unknown): ReturnType<PreceptorError["toBody"]> {
  const known =
    error instanceof PreceptorError
      ? error
      : fail("internal_error", "the model could not be read; the log has the reason");
  return known.toBody();
}

/** Settings that both roles of an id share; format, metadata and pinning may differ. */
function shared(body: unknown): unknown {
  const { format: _, metadata: __, pinned: ___, ...rest } = body as RegisterModel;
  return rest;
}

/** JSON with sorted keys: jsonb does not keep their order. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    inner && typeof inner === "object" && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

async function within<T>(work: Promise<T>, ms: number): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, ms, undefined);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
