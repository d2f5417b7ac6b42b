/** From what a caller asked for to a TrainingConfig with every default filled in. Refuses what makes no sense, by its path. */
import { createHash } from "node:crypto";
import { isAllowedHost } from "../allowed-hosts.ts";
import { canonicalJson } from "../canonical-json.ts";
import { fail } from "../errors.ts";
import { DEFAULT_COEFFICIENTS } from "../rlt/reward.ts";
import {
  type Hyperparameters,
  LORA_DEFAULTS,
  type LoraConfig,
  type RewardSpec,
  type RolloutPrecision,
  rltDefaults,
  rowsPerStep,
  sftDefaults,
  TARGET_MODULES,
  type TrainingConfig,
} from "./config.ts";
import type { GivenHyperparameters, GivenLora, GivenReward, TrainingRequest } from "./request.ts";

export interface Surroundings {
  allowedHosts: readonly string[];
  /** In [0, 1), for a seed where none is given. */
  random: () => number;
}

/** Random seeds are 32-bit: short enough to copy by hand. */
const SEED_RANGE = 2 ** 32;
/** Held-out rows looked at per evaluation: a step's worth of a larger run. */
const EVAL_ROWS = 64;

export function resolveConfig(request: TrainingRequest, surroundings: Surroundings): TrainingConfig {
  const { method, preset, hyperparameters: given = {} } = request;
  const names = resolveNames(request);
  const lora = resolveLora(request);
  if (method === "sft" && preset) throw wrong("preset", "sft has one set of defaults; leave preset out");
  const defaults =
    method === "rlt"
      ? rltDefaults(preset ?? "small", lora !== null)
      : sftDefaults(names.role as "teacher" | "student", lora !== null);
  const hyperparameters = fill(defaults, given, "hyperparameters", request);
  if (method === "rlt") checkGroups(hyperparameters);
  else refuseOfRlt(given, "hyperparameters");
  return {
    method,
    ...names,
    dataset: request.dataset,
    hyperparameters,
    lora,
    warmup: resolveWarmup(request, lora !== null),
    rewards: method === "rlt" ? resolveRewards(request, names.student, surroundings.allowedHosts) : [],
    rollout_precision: resolveRollouts(request),
    eval: resolveEval(request, hyperparameters),
    budget: { tokens: request.budget?.tokens ?? null, seconds: request.budget?.seconds ?? null },
    seed: request.seed ?? given.seed ?? Math.floor(surroundings.random() * SEED_RANGE),
    suffix: request.suffix ?? null,
    from_checkpoint: null,
  };
}

/** The configuration of a fork: what its job had, but for these hyperparameters. */
export function changeHyperparameters(config: TrainingConfig, given: GivenHyperparameters): TrainingConfig {
  if (given.seed !== undefined) {
    throw wrong("hyperparameters.seed", "a fork keeps its job's seed, by which rows and draws go on; leave it out");
  }
  if (config.method === "sft") refuseOfRlt(given, "hyperparameters");
  const hyperparameters = fill(config.hyperparameters, given, "hyperparameters", {});
  if (config.method === "rlt") checkGroups(hyperparameters);
  return { ...config, hyperparameters };
}

/** Equal configurations have equal hashes, in whatever order they were written. */
export function configHash(config: object): string {
  return `sha256:${createHash("sha256").update(canonicalJson(config)!).digest("hex")}`;
}

function wrong(param: string, message: string): Error {
  return fail("invalid_value", `${param}: ${message}`, { param });
}

const missing = (param: string, message: string): Error => fail("invalid_value", `${param} ${message}`, { param });

function resolveNames(request: TrainingRequest): Pick<TrainingConfig, "role" | "model" | "student"> {
  const { method, role, model, teacher, student } = request;
  if (model !== undefined && teacher !== undefined)
    throw wrong("teacher", "name the model once: as model or as teacher");
  if (method === "rlt") {
    if (role === "student") throw wrong("role", "rlt trains a teacher; a student is trained by sft");
    const named = teacher ?? model;
    if (named === undefined) throw missing("teacher", "is required: rlt trains a teacher");
    return { role: "teacher", model: named, student: student ?? null };
  }
  if (request.warmup) throw wrong("warmup", "an sft job has no warm-up before it; that is a part of rlt");
  if (request.rewards) throw wrong("rewards", "sft learns from examples and has no rewards; leave them out");
  if (request.rollout_precision) throw wrong("rollout_precision", "sft draws no explanations; leave it out");
  const implied = role ?? (teacher !== undefined ? "teacher" : student !== undefined ? "student" : undefined);
  if (implied === undefined) throw missing("role", 'is required ("teacher", "student"): what sft makes of the model');
  if (implied === "student" && teacher !== undefined)
    throw wrong("teacher", "sft of a student has no teacher; leave it out");
  if (implied === "teacher" && student !== undefined)
    throw wrong("student", "sft of a teacher has no student; leave it out");
  if (model !== undefined && student !== undefined)
    throw wrong("student", "name the model once: as model or as student");
  const named = model ?? teacher ?? student;
  if (named === undefined) throw missing("model", "is required");
  return { role: implied, model: named, student: null };
}

/** Low-rank unless everything is asked for: it takes a fraction of the memory, and method.md's defaults are made for it. */
function resolveLora({ lora, full }: TrainingRequest): LoraConfig | null {
  if (full) {
    if (lora) throw wrong("full", "either lora or full: true, not both");
    return null;
  }
  const given = lora ?? {};
  if ((given.lora_dropout ?? 0) !== 0) {
    throw wrong(
      "lora.lora_dropout",
      "must be 0: with dropout the weights that learn would not be those that sampled, and a resumed run would not repeat itself",
    );
  }
  const targets = alias(given, "target_modules", "targets", "lora") ?? [...TARGET_MODULES];
  return {
    r: alias(given, "r", "rank", "lora") ?? LORA_DEFAULTS.r,
    lora_alpha: alias(given, "lora_alpha", "alpha", "lora") ?? LORA_DEFAULTS.lora_alpha,
    target_modules: targets === "all-linear" ? [...TARGET_MODULES] : [...new Set(targets)].sort(),
    use_rslora: given.use_rslora ?? LORA_DEFAULTS.use_rslora,
  };
}

/** One value under two names: both may stand there if they say the same. */
function alias<G extends GivenLora, A extends keyof G, B extends keyof G>(
  given: G,
  name: A,
  other: B,
  path: string,
): Exclude<G[A], undefined> | undefined {
  const [first, second] = [given[name], given[other]] as unknown[];
  if (first !== undefined && second !== undefined && canonicalJson(first) !== canonicalJson(second)) {
    throw wrong(`${path}.${String(other)}`, `is another name for ${String(name)}, which says something else`);
  }
  return (first ?? second) as Exclude<G[A], undefined> | undefined;
}

function fill(
  defaults: Hyperparameters,
  given: GivenHyperparameters,
  path: string,
  request: Pick<TrainingRequest, "eval">,
): Hyperparameters {
  const { n_epochs, batch_size, seed: _, ...named } = given;
  const both = (
    name: "num_train_epochs" | "per_device_train_batch_size",
    other: "n_epochs" | "batch_size",
  ): number | undefined => {
    const value = given[other] === "auto" ? undefined : (given[other] as number | undefined);
    if (value !== undefined && named[name] !== undefined && value !== named[name]) {
      throw wrong(`${path}.${other}`, `is another name for ${name}, which says something else`);
    }
    return named[name] ?? value;
  };
  const epochs = both("num_train_epochs", "n_epochs");
  const batch = both("per_device_train_batch_size", "batch_size");
  const filled: Hyperparameters = {
    ...defaults,
    // Whoever names epochs means them; TRL lets max_steps win only where it is given.
    ...(epochs === undefined ? {} : { num_train_epochs: epochs, max_steps: -1 }),
    ...withoutUndefined(named),
    ...(batch === undefined ? {} : { per_device_train_batch_size: batch }),
  };
  if (path === "hyperparameters" && request.eval && given.eval_steps === undefined)
    filled.eval_steps = filled.save_steps;
  return filled;
}

const withoutUndefined = <T extends object>(given: T): { [K in keyof T]?: Exclude<T[K], undefined> } =>
  Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as never;

/** TRL's: a step takes batch × accumulation explanations, of which num_generations are one question's. */
function checkGroups(h: Hyperparameters): void {
  if (h.num_generations < 2) {
    throw wrong(
      "hyperparameters.num_generations",
      "must be at least 2: an explanation is judged against others of its question",
    );
  }
  if (Number.isInteger(rowsPerStep(h))) return;
  const { per_device_train_batch_size: batch, gradient_accumulation_steps: accumulation, num_generations: group } = h;
  throw wrong(
    "hyperparameters.num_generations",
    `questions per step = per_device_train_batch_size × gradient_accumulation_steps / num_generations = ${batch} × ${accumulation} / ${group}, which is not a whole number`,
  );
}

const OF_RLT = [
  "num_generations",
  "max_prompt_length",
  "max_completion_length",
  "temperature",
  "top_p",
  "beta",
  "sync_ref_model",
  "ref_model_mixup_alpha",
  "ref_model_sync_steps",
] as const satisfies (keyof Hyperparameters)[];

function refuseOfRlt(given: GivenHyperparameters, path: string): void {
  const found = OF_RLT.find((name) => given[name] !== undefined);
  if (found) throw wrong(`${path}.${found}`, "belongs to rlt; sft draws no explanations");
}

function resolveWarmup(request: TrainingRequest, lora: boolean): Hyperparameters | null {
  const { warmup } = request;
  if (!warmup) return null;
  refuseOfRlt(warmup, "warmup");
  if (warmup.seed !== undefined) throw wrong("warmup.seed", "a job has one seed; give it as seed");
  return fill(sftDefaults("teacher", lora), warmup, "warmup", request);
}

function resolveRewards(
  { rewards }: TrainingRequest,
  student: string | null,
  allowedHosts: readonly string[],
): RewardSpec[] {
  const given: GivenReward[] = rewards ?? [{ type: "student", weight: 1 }];
  given.forEach(({ type }, i) => {
    if (given.findIndex((other) => other.type === type) !== i) {
      throw wrong(`rewards.${i}.type`, `${type} stands there twice; give one with the sum of the weights`);
    }
  });
  const wantsStudent = given.some(({ type }) => type === "student");
  if (wantsStudent && student === null)
    throw missing("student", 'is required: the reward "student" is what it makes of an explanation');
  if (!wantsStudent && student !== null)
    throw wrong("student", 'no reward asks it; add {"type": "student"} to rewards, or leave it out');
  return given.map((reward, i) => resolveReward(reward, i, allowedHosts));
}

function resolveReward(reward: GivenReward, i: number, allowedHosts: readonly string[]): RewardSpec {
  if (reward.type === "student") {
    const { solution, kl } = reward.coefficients ?? {};
    return {
      type: "student",
      weight: reward.weight,
      coefficients: {
        solution: { ...DEFAULT_COEFFICIENTS.solution, ...withoutUndefined(solution ?? {}) },
        kl: { ...DEFAULT_COEFFICIENTS.kl, ...withoutUndefined(kl ?? {}) },
      },
    };
  }
  if (reward.type === "length" && reward.max_tokens <= reward.target_tokens) {
    throw wrong(
      `rewards.${i}.max_tokens`,
      "must be greater than target_tokens: from there to here the reward falls by 1",
    );
  }
  if (reward.type === "http") checkUrl(reward.url, `rewards.${i}.url`, allowedHosts);
  return { ...reward };
}

function checkUrl(text: string, param: string, allowedHosts: readonly string[]): void {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (!url || !/^https?:$/.test(url.protocol)) throw wrong(param, "must be an http:// or https:// URL");
  if (url.username !== "" || url.password !== "") throw wrong(param, "must not contain a user name or password");
  if (isAllowedHost(url, allowedHosts)) return;
  throw fail("model_source_not_allowed", `${url.host} is not among PRECEPTOR_ALLOWED_HOSTS`, { param });
}

function resolveRollouts({ rollout_precision: precision = "fp32", full }: TrainingRequest): RolloutPrecision {
  if (precision === "fp32" || !full) return precision;
  throw wrong(
    "rollout_precision",
    "whole weights would have to be quantised anew at every step; train with lora, or leave it out",
  );
}

function resolveEval({ eval: given }: TrainingRequest, h: Hyperparameters): TrainingConfig["eval"] {
  if (!given) {
    if (h.eval_steps > 0)
      throw wrong("hyperparameters.eval_steps", "there is nothing to evaluate on; give eval.held_out or eval.dataset");
    if (h.early_stopping_patience > 0) {
      throw wrong("hyperparameters.early_stopping_patience", "needs evaluations; give eval.held_out or eval.dataset");
    }
    return null;
  }
  const { dataset = null, held_out, rows = EVAL_ROWS } = given;
  if (dataset !== null && held_out !== undefined) {
    throw wrong("eval.held_out", "evaluate on rows of the training dataset or on another dataset, not both");
  }
  if (dataset === null && held_out === undefined) {
    throw missing("eval.held_out", "is required (the share of rows that are not trained on), or eval.dataset");
  }
  // Who stops early because it gets worse wants what there was before.
  const publish = given.publish ?? (h.early_stopping_patience > 0 ? "best" : "last");
  if (publish === "best" && h.eval_steps === 0) throw wrong("eval.publish", "no evaluation is due: eval_steps is 0");
  return { dataset, held_out: held_out ?? 0, rows, publish };
}
