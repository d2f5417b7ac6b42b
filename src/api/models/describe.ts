/** A registered model as the API shows it. */
import type { ModelRecord, ModelRole } from "../../db/records.ts";
import type { Capabilities } from "../../engine/engine.ts";
import type { Placement } from "../../engine/placement.ts";
import { bodyOf } from "../../errors.ts";
import { unixSeconds } from "../../http/schemas.ts";
import { isRemoteSource } from "../../model/source.ts";
import type { Known, Preparation } from "./preparation.ts";
import type { ModelResource } from "./schemas.ts";
import { formatOf, type ModelResources, openOptions, resolveDevice, type Version } from "./version.ts";

export interface DescribeDeps {
  preparation: Preparation;
  placement: Placement;
  /** What an unloaded model will be able to do. */
  capabilities: Capabilities;
  resources: ModelResources;
}

/** Takes milliseconds: headers may be read, nothing is downloaded, converted or loaded. Never throws for a broken model. */
export async function describeModel(
  deps: DescribeDeps,
  role: ModelRole,
  model: ModelRecord,
  version: Version,
): Promise<ModelResource> {
  const known = await deps.preparation.look(version);
  const { checkpoint, prepared } = known;
  const remote = prepared?.kind === "remote" ? prepared.model : undefined;
  const isRemote = isRemoteSource(version.source);
  const opened = checkpoint && openOptions(version, checkpoint, deps.resources);
  const [placed, failure, engine] =
    checkpoint && opened
      ? [
          deps.placement.status(checkpoint, opened),
          deps.placement.failure(checkpoint, opened),
          deps.placement.peek(checkpoint, opened),
        ]
      : (["unloaded"] as const);
  const error = known.error ?? failure;
  return {
    id: model.id,
    object: role,
    created_at: unixSeconds(model.createdAt),
    version: version.version,
    status: remote ? "ready" : statusOf(known.state, placed, error),
    model: version.source,
    adapter: version.adapter,
    format: formatOf(version, role) as ModelResource["format"],
    precision: opened?.precision ?? (version.precision as ModelResource["precision"]),
    device: isRemote ? "remote" : resolveDevice(version.device),
    context_length: remote?.contextLength ?? opened?.contextLength ?? version.contextLength,
    parameters: checkpoint?.parameters ?? null,
    tokenizer: version.tokenizer,
    tempered: version.tempered,
    weights_hash: checkpoint?.weightsHash ?? version.weightsHash,
    adapter_hash: prepared?.adapter?.hash ?? version.adapterHash,
    tokenizer_hash: prepared?.text.tokenizerHash ?? version.tokenizerHash,
    capabilities: capabilitiesOf((remote ?? engine)?.capabilities ?? (isRemote ? NOT_REACHED : deps.capabilities)),
    pinned: model.pinned,
    ...(error === undefined ? {} : { error: bodyOf(error, "the model could not be read; the log has the reason") }),
    metadata: model.metadata,
  };
}

/** A remote model that has not been reached: nobody knows what it can do. */
export const NOT_REACHED: Capabilities = {
  sample: false,
  logprobs: false,
  exact_temperatures: [],
  topk: false,
  at_ids: false,
  distributions: false,
  adapters: false,
  train: false,
  batch_invariant: false,
};

function capabilitiesOf({ exact_temperatures: exact, ...flags }: Capabilities): ModelResource["capabilities"] {
  return { ...flags, temperature_scoring: exact === null, exact_temperatures: exact && [...exact] };
}

function statusOf(
  state: Known["state"],
  placed: ReturnType<Placement["status"]>,
  error: unknown,
): ModelResource["status"] {
  if (state === "pending" || placed === "loading") return "loading";
  if (placed === "loaded") return "ready";
  return error === undefined ? "unloaded" : "failed";
}
