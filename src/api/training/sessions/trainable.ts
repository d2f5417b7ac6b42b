/** From the fields of a request to what is trained; what a schema cannot judge. */
import type { LoraOptions, Trainable } from "../../../engine/engine.ts";
import { fail } from "../../../errors.ts";
import type { AdapterFiles, Checkpoint, ModelConfig } from "../../../model/checkpoint.ts";
import { linearShapes } from "../../../model/tensors.ts";
import { isCheckpointId } from "../../models/preparation.ts";
import type { TrainingBase } from "../../models/training-base.ts";
import type { CreateSession, LoraBody } from "./schemas.ts";

/** Usual for adapters that learn a task; the LoRA paper finds little gain beyond (arXiv 2106.09685, section 7.2). */
const DEFAULT_RANK = 16;
/** alpha = 2 × rank, as most recipes have it. */
const ALPHA_PER_RANK = 2;

/** Needs no files, so it comes before they are read. Throws `invalid_value`, `unsupported_parameter`. */
export function refuseContradictions({ adapter, lora, full }: CreateSession): void {
  if (full && lora) throw invalid("send either lora or full: true, not both", "full");
  if (full && adapter !== undefined) {
    throw invalid(
      "full trains every parameter of the bare model; leave out adapter, or leave out full to go on with it",
      "full",
    );
  }
  if (!lora) return;
  if (lora.lora_dropout !== undefined && lora.lora_dropout !== 0) {
    throw fail(
      "unsupported_parameter",
      "lora.lora_dropout must be 0: the gradients are exact and repeatable, and dropout would make them random",
      { param: "lora.lora_dropout" },
    );
  }
  for (const [name, alias] of ALIASES) {
    if (lora[name] === undefined || lora[alias] === undefined) continue;
    if (JSON.stringify(lora[name]) !== JSON.stringify(lora[alias])) {
      throw invalid(`${alias} is another name of ${name}; send one of them`, `lora.${alias}`);
    }
  }
  const rankField = lora.rank === undefined ? "r" : "rank";
  const rank = lora.rank ?? lora.r;
  if (rank !== undefined && rank < 1) {
    throw invalid(
      `is ${rank}; an adapter has rank 1 or more. To train every parameter without one, send full: true`,
      `lora.${rankField}`,
    );
  }
}

const ALIASES = [
  ["rank", "r"],
  ["alpha", "lora_alpha"],
  ["targets", "target_modules"],
] as const;

/** `adapter`: that of the request, or of the registered version. Throws `invalid_value`. */
export function chooseTrainable(
  body: CreateSession,
  { checkpoint, adapter }: { checkpoint: Checkpoint; adapter: AdapterFiles | null },
  randomSeed: () => number,
): Trainable {
  if (body.full) {
    if (adapter)
      throw invalid("this version of the model has an adapter; train that, or name a version without", "full");
    return { kind: "full" };
  }
  if (adapter) {
    if (body.lora) refuseOtherAdapter(body.lora, adapter, checkpoint.config);
    return { kind: "adapter", adapter };
  }
  const { lora = {} } = body;
  const rank = lora.rank ?? lora.r ?? DEFAULT_RANK;
  return {
    kind: "lora",
    lora: {
      rank,
      alpha: lora.alpha ?? lora.lora_alpha ?? ALPHA_PER_RANK * rank,
      rsLora: lora.use_rslora ?? false,
      targets: targetsOf(lora, checkpoint.config) ?? Object.keys(linearShapes(checkpoint.config)),
      seed: lora.seed ?? randomSeed(),
    },
  };
}

/** In the order of the model. Undefined where none are named. */
function targetsOf(lora: LoraBody, config: ModelConfig): string[] | undefined {
  const field = lora.targets === undefined ? "target_modules" : "targets";
  const named = lora.targets ?? lora.target_modules;
  const known = Object.keys(linearShapes(config));
  if (named === undefined) return undefined;
  if (named === "all-linear") return known;
  const unknown = named.findIndex((name) => !known.includes(name));
  if (unknown >= 0) {
    const shown = JSON.stringify(named[unknown]);
    throw invalid(`${shown} is no linear map of this model; they are ${known.join(", ")}`, `lora.${field}.${unknown}`);
  }
  return known.filter((name) => named.includes(name));
}

/** Whoever describes the adapter too means the one they think it is. */
function refuseOtherAdapter(lora: LoraBody, { targets }: AdapterFiles, config: ModelConfig): void {
  const rank = lora.rank ?? lora.r;
  const differs = (what: string, field: string): Error =>
    invalid(
      `the adapter has another ${what}; leave it out, or leave out adapter to begin with a new one`,
      `lora.${field}`,
    );
  if (rank !== undefined && targets.some((target) => target.rank !== rank)) throw differs("rank", "rank");
  const alpha = lora.alpha ?? lora.lora_alpha;
  if (alpha !== undefined) {
    const scale = (r: number): number => alpha / (lora.use_rslora ? Math.sqrt(r) : r);
    if (targets.some((target) => Math.abs(target.scale - scale(target.rank)) > 1e-6 * target.scale)) {
      throw differs("alpha", "alpha");
    }
  }
  const named = targetsOf(lora, config);
  const has = new Set(targets.map(({ module }) => module));
  if (named && (named.length !== has.size || named.some((name) => !has.has(name)))) {
    throw differs("set of targets", "targets");
  }
}

/**
 * Where the state that training goes on from may lie: in the checkpoint that was named, if what it saved is what learns now.
 * A version that was published from one begins anew.
 */
export function resumedFrom(
  { model, adapter, state }: CreateSession,
  { checkpoint }: Pick<TrainingBase, "checkpoint">,
  trainable: Trainable,
): string | null {
  const named = adapter ?? model.slice(model.indexOf("@") + 1);
  if (!state || !isCheckpointId(named)) return null;
  if (trainable.kind === "lora") return null;
  return trainable.kind === "full" ? checkpoint.directory : trainable.adapter.directory;
}

/** What was trained, as `id@version` or `id@ckpt_…`: so a checkpoint of it is called, too. Null: nobody registered it. */
export function registeredName(
  { model }: CreateSession,
  { registered }: Pick<TrainingBase, "registered">,
): string | null {
  if (!registered) return null;
  const [id, version] = model.split("@");
  return version !== undefined && isCheckpointId(version)
    ? `${id}@${version}`
    : `${registered.id}@${registered.version}`;
}

/** Numbers that learn. */
export function parametersOf(trainable: Trainable, { config, parameters }: Checkpoint): number {
  if (trainable.kind === "full") return parameters;
  const shapes = linearShapes(config);
  const perRank = (module: string): number => shapes[module]!.in + shapes[module]!.out;
  if (trainable.kind === "adapter") {
    return trainable.adapter.targets.reduce((sum, { module, rank }) => sum + rank * perRank(module), 0);
  }
  const { rank, targets }: LoraOptions = trainable.lora;
  return config.layers * rank * targets.reduce((sum, module) => sum + perRank(module), 0);
}

function invalid(message: string, param: string): Error {
  return fail("invalid_value", message.startsWith("is ") ? `${param} ${message}` : message, { param });
}
