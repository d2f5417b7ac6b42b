/** All that can be wrong with a job before it is queued: its configuration against the models and rows it names. */
import { fail, PreceptorError } from "../../../errors.ts";
import type { AdapterFiles } from "../../../model/checkpoint.ts";
import { type LoraConfig, type TrainingConfig, totalSteps } from "../../../train/config.ts";
import type { DatasetSource } from "../../../train/datasets.ts";
import type { TrainingDataset } from "../../../train/job-deps.ts";
import type { TrainingRequest } from "../../../train/request.ts";
import { resolveConfig, type Surroundings } from "../../../train/resolve-config.ts";
import type { PreparedCheckpoint } from "../../models/preparation.ts";
import type { ModelService } from "../../models/service.ts";
import { resolveDevice, type Version } from "../../models/version.ts";
import { notTrainable } from "../use.ts";

export interface CheckDeps extends Surroundings {
  models: Pick<ModelService, "prepare">;
  datasets: DatasetSource;
}

export interface CheckedJob {
  /** Models by version, every default filled in. */
  config: TrainingConfig;
  version: Version;
  prepared: PreparedCheckpoint;
  /** Null where only a remote server knows it. */
  contextLength: number | null;
  dataset: TrainingDataset;
  /** Rows that are trained on, and steps of both phases together. */
  rows: number;
  steps: number;
}

export async function checkJob(deps: CheckDeps, request: TrainingRequest): Promise<CheckedJob> {
  const checked = await checkModels(deps, request);
  const { config } = checked;
  const dataset = await deps.datasets.open(config.dataset);
  await checkRows(dataset, "dataset", needsTraces(config));
  await checkHeldOut(deps, config);
  return { ...checked, dataset, ...(await sizeOf(config, dataset)) };
}

/** All of it but the rows. */
export async function checkModels(
  deps: Omit<CheckDeps, "datasets">,
  request: TrainingRequest,
): Promise<Pick<CheckedJob, "config" | "version" | "prepared" | "contextLength">> {
  const asked = resolveConfig(request, deps);
  const param = request.model !== undefined ? "model" : asked.role;
  const model = await deps.models.prepare(asked.model, { role: asked.role, param });
  const { version, prepared } = model;
  if (prepared.kind !== "checkpoint") throw notTrainable(version.id, param);
  const student =
    asked.student === null ? null : await deps.models.prepare(asked.student, { role: "student", param: "student" });
  if (student?.prepared.kind === "remote" && !student.prepared.model.capabilities.logprobs) {
    throw fail(
      "unsupported_by_backend",
      `${student.version.id} cannot report log-probs of given texts, so it can judge nobody`,
      {
        param: "student",
      },
    );
  }
  if (asked.rollout_precision !== "fp32" && resolveDevice(version.device) !== "cpu") {
    throw fail(
      "unsupported_by_backend",
      `rollout_precision: ${asked.rollout_precision} is for the CPU, and ${version.id} is on ${version.device}; leave it out`,
      { param: "rollout_precision" },
    );
  }
  const lora = loraOn(prepared.adapter, asked.lora, request);
  const config: TrainingConfig = {
    ...asked,
    lora,
    model: pinned(asked.model, version),
    student: student && pinned(asked.student!, student.version),
  };
  if (config.suffix !== null) checkSuffix(version.id, config.suffix);
  if (config.method === "rlt") {
    checkContext(config, version.id, model.contextLength);
    if (student) checkContext(config, student.version.id, student.contextLength);
  }
  return { config, version, prepared, contextLength: model.contextLength };
}

/** What a job is about must not change while it waits: `id` becomes `id@3`. */
export function pinned(name: string, { id, version }: Version): string {
  return name.includes("@ckpt_") ? name : `${id}@${version}`;
}

/** A model with an adapter goes on learning in that adapter, which has a form already. */
function loraOn(adapter: AdapterFiles | null, lora: LoraConfig | null, request: TrainingRequest): LoraConfig | null {
  if (!adapter) return lora;
  if (!lora) {
    throw fail(
      "invalid_value",
      "full: this model has an adapter, whose base cannot be trained in full; train with lora",
      {
        param: "full",
      },
    );
  }
  const { rank = lora.r, scale = 1 } = adapter.targets[0] ?? {};
  const own: LoraConfig = {
    r: rank,
    lora_alpha: scale * rank,
    target_modules: [...new Set(adapter.targets.map(({ module }) => module))].sort(),
    use_rslora: false,
  };
  const given = request.lora ?? {};
  const differs =
    ((given.r ?? given.rank) !== undefined && lora.r !== own.r) ||
    ((given.target_modules ?? given.targets) !== undefined && lora.target_modules.join() !== own.target_modules.join());
  if (!differs) return own;
  throw fail(
    "invalid_value",
    `lora: this model has an adapter of rank ${own.r} on ${own.target_modules.join(", ")}, in which it goes on learning; leave lora out, or train a version without adapter`,
    { param: "lora" },
  );
}

/** Longest id that a model may have. */
const MAX_ID = 64;

function checkSuffix(id: string, suffix: string): void {
  const { length } = `${id}-${suffix}`;
  if (length <= MAX_ID) return;
  throw fail(
    "invalid_value",
    `suffix: ${id}-${suffix} would have ${length} characters; at most ${MAX_ID} are possible`,
    {
      param: "suffix",
    },
  );
}

function checkContext({ hyperparameters: h }: TrainingConfig, id: string, contextLength: number | null): void {
  const needed = (h.max_prompt_length ?? 0) + h.max_completion_length;
  if (contextLength === null || needed <= contextLength) return;
  const sum = h.max_prompt_length === null ? "" : `max_prompt_length ${h.max_prompt_length} + `;
  throw fail(
    "context_length_exceeded",
    `hyperparameters.max_completion_length: ${sum}max_completion_length ${h.max_completion_length} are more than the ${contextLength} tokens of ${id}'s context; lower them, or register it with a longer context_length`,
    { param: "hyperparameters.max_completion_length" },
  );
}

/** Rows looked at for what they must have before a job is accepted; of the others it is found out when their turn comes. */
const ROWS_CHECKED = 1_000;

async function checkRows(dataset: TrainingDataset, param: string, traces: boolean): Promise<void> {
  if (dataset.count === 0) throw fail("invalid_value", `${param}: it has no rows`, { param });
  if (!traces) return;
  for (let i = 0; i < Math.min(dataset.count, ROWS_CHECKED); i++) {
    if ((await dataset.row(i)).reasoning_trace !== undefined) continue;
    throw fail(
      "invalid_value",
      `${param}: row ${i + 1} has no reasoning_trace, from which a teacher would learn to explain`,
      { param },
    );
  }
}

async function checkHeldOut({ datasets }: Pick<CheckDeps, "datasets">, config: TrainingConfig): Promise<void> {
  const param = "eval.dataset";
  if (!config.eval?.dataset) return;
  const dataset = await datasets.open(config.eval.dataset).catch((error: unknown) => {
    throw error instanceof PreceptorError ? fail(error.code, error.message, { param }) : error;
  });
  await checkRows(dataset, param, config.method === "sft" && config.role === "teacher");
}

const needsTraces = ({ method, role, warmup }: TrainingConfig): boolean =>
  method === "rlt" ? warmup !== null : role === "teacher";

/** How much a job is. */
export async function sizeOf(
  config: TrainingConfig,
  dataset: TrainingDataset,
): Promise<{ rows: number; steps: number }> {
  const { train } = await dataset.split(config.eval?.held_out ?? 0, 0);
  const rows = train.length;
  if (rows === 0)
    throw fail("invalid_value", "eval.held_out: it leaves no row to train on", { param: "eval.held_out" });
  const warmup = config.warmup ? totalSteps(config.warmup, rows) : 0;
  return { rows, steps: warmup + totalSteps(config.hyperparameters, rows) };
}
