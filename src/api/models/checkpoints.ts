/** Trained checkpoints as versions of models: named by `id@ckpt_…`, or published as the next version. */
import type { ModelStore } from "../../db/model-store.ts";
import type { ModelRecord, ModelRole, VersionChanges } from "../../db/records.ts";
import { fail } from "../../errors.ts";
import type { CheckpointRecord } from "../../jobs/records.ts";
import type { RegisterModel } from "./schemas.ts";
import type { Version } from "./version.ts";

export interface CheckpointLookup {
  store: Pick<ModelStore, "findVersion">;
  findCheckpoint(id: string): Promise<CheckpointRecord | undefined>;
}

/** The version of `model` that the checkpoint was trained from, with the checkpoint's weights in place of its own. */
export async function versionOfCheckpoint(
  { store, findCheckpoint }: CheckpointLookup,
  model: ModelRecord,
  id: string,
  param: string | undefined,
): Promise<Version> {
  const checkpoint = await findCheckpoint(id);
  if (!checkpoint || checkpoint.deletedAt) {
    throw fail("model_not_found", `no checkpoint ${id} exists (any more); GET /v1/checkpoints lists all`, { param });
  }
  const parent = parentOf(checkpoint);
  if (parent?.id !== model.id) {
    throw fail(
      "model_not_found",
      `${id} was not trained from ${model.id}${parent ? `; it is called ${parent.id}@${id}` : ""}`,
      { param },
    );
  }
  const base = await baseVersion({ store, findCheckpoint }, model, checkpoint);
  if (!base) throw fail("model_not_found", `the version that ${id} was trained from is gone`, { param });
  return { ...base, ...weightsOf(checkpoint, base), trained: id };
}

/** `model` of a checkpoint's config, taken apart: what it was trained from. */
function parentOf({ config }: CheckpointRecord): { id: string; version: string } | undefined {
  const { model } = config as { model?: unknown };
  if (typeof model !== "string") return undefined;
  const at = model.indexOf("@");
  return at < 0 ? undefined : { id: model.slice(0, at), version: model.slice(at + 1) };
}

/** A checkpoint may have been trained from another one; at the end of the line there is a numbered version. */
async function baseVersion(
  lookup: CheckpointLookup,
  model: ModelRecord,
  checkpoint: CheckpointRecord,
): Promise<Version | undefined> {
  const parent = parentOf(checkpoint);
  if (!parent) return undefined;
  const number = Number(parent.version);
  if (Number.isInteger(number)) {
    if (number < model.firstVersion) return undefined;
    const version = await lookup.store.findVersion(model.id, number);
    return version && { ...version, id: model.id };
  }
  const before = await lookup.findCheckpoint(parent.version);
  const base = before && (await baseVersion(lookup, model, before));
  return base && { ...base, ...weightsOf(before, base) };
}

type Weights = Pick<Version, "source" | "adapter" | "weightsHash" | "adapterHash">;

/** An adapter lies over the base that it was trained on; whole weights stand alone. */
function weightsOf(
  { id, kind, weightsHash }: Pick<CheckpointRecord, "id" | "kind" | "weightsHash">,
  base: Weights,
): Weights {
  return kind === "full"
    ? { source: id, adapter: null, weightsHash, adapterHash: null }
    : { source: base.source, adapter: id, weightsHash: base.weightsHash, adapterHash: weightsHash };
}

export interface PublishRequest {
  /** That was trained, with its version. */
  model: string;
  role: ModelRole;
  checkpoint: Pick<CheckpointRecord, "id" | "kind" | "weightsHash">;
  /** Published as `<id>-<suffix>`; null: as the model itself. */
  suffix: string | null;
}

export interface Published {
  role: ModelRole;
  id: string;
  version: number;
}

/** `trained`: the version that was trained. A second call with the same checkpoint finds what the first one made. */
export async function publishCheckpoint(
  store: ModelStore,
  trained: Version,
  { role, checkpoint, suffix }: PublishRequest,
): Promise<Published> {
  const id = suffix === null ? trained.id : `${trained.id}-${suffix}`;
  const weights = weightsOf(checkpoint, trained);
  const { precision, device, contextLength, tokenizerHash } = trained;
  const changes: VersionChanges = { ...weights, precision, device, contextLength, tokenizerHash };
  const known = await store.find(id);
  if (known && known.source === weights.source && known.adapter === weights.adapter && known.roles.includes(role)) {
    return { role, id, version: known.version };
  }
  const format = trained.formats[role];
  const body = bodyOf(id, trained, weights, role);
  const made = known ? undefined : await store.insert({ ...trained, ...weights, id, role, format, body });
  if (made) return { role, id, version: made.version };
  if (known && !known.roles.includes(role)) await store.addRole(id, role, { format, body });
  const next = await store.addVersion(id, changes);
  if (!next) throw fail("conflict", `${id} was deleted while the job ran; its checkpoint ${checkpoint.id} is kept`);
  return { role, id, version: next.version };
}

/** As if a caller had registered it. */
function bodyOf(
  id: string,
  { contextLength, ...trained }: Version,
  { source, adapter }: Weights,
  role: ModelRole,
): RegisterModel {
  return {
    id,
    model: source,
    ...(adapter === null ? {} : { adapter }),
    format: trained.formats[role] as RegisterModel["format"],
    precision: trained.precision as RegisterModel["precision"],
    device: trained.device,
    ...(contextLength === null ? {} : { context_length: contextLength }),
    pinned: false,
    metadata: {},
  };
}
