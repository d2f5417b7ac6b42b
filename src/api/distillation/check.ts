/** All that can be wrong with a distillation job before it is queued. */
import type { DistillConfig, Finetune } from "../../distill/config.ts";
import { resolveDistillation } from "../../distill/resolve.ts";
import { fail } from "../../errors.ts";
import type { TrainingDataset, TrainingRow } from "../../train/job-deps.ts";
import { checkEvaluation, type EvaluationCheckDeps } from "../evaluations/check.ts";
import { lacking, type Needs } from "../models/needs.ts";
import { type CheckDeps, checkModels, pinned } from "../training/jobs/check.ts";
import type { CreateDistillation } from "./request-schemas.ts";

export type DistillCheckDeps = CheckDeps & EvaluationCheckDeps;

export async function checkDistillation(deps: DistillCheckDeps, request: CreateDistillation): Promise<DistillConfig> {
  const asked = resolveDistillation(request, deps);
  const teacher = await able(deps.models, request.teacher, "teacher", { sample: true });
  const student =
    request.student === undefined ? null : await able(deps.models, request.student, "student", { logprobs: true });
  const dataset = await deps.datasets.open(request.dataset);
  if (dataset.count === 0) throw fail("invalid_value", "dataset: it has no rows", { param: "dataset" });
  if (request.finetune?.controls.includes("reasoning_trace") && !(await someRow(dataset, hasTrace))) {
    throw fail("invalid_value", "finetune.controls: the dataset's rows have no reasoning_trace to learn from", {
      param: "finetune.controls",
    });
  }
  const { filters } = asked;
  if (request.fits_context === true) filters.fits_context = contextOf(student);
  const trained = await checkFinetune(deps, request, asked.seed);
  // One row longer than the context of the model that is to learn it would end the job after everything was generated.
  if (request.fits_context === undefined && student && trained) filters.fits_context = trained.contextLength;
  return {
    ...asked,
    teacher: teacher.name,
    student: student?.name ?? null,
    filters,
    finetune: trained?.finetune ?? null,
    evaluate: await checkMeasurement(deps, request, asked.seed),
  };
}

export interface Able {
  name: string;
  contextLength: number | null;
}

/** With its version: what a job is about must not change while it waits. */
export async function able(
  models: DistillCheckDeps["models"],
  name: string,
  role: "teacher" | "student",
  needs: Needs,
): Promise<Able> {
  const { version, prepared, contextLength } = await models.prepare(name, { role, param: role });
  const lack = prepared.kind === "remote" ? lacking(prepared.model.capabilities, needs) : null;
  if (lack !== null) {
    throw fail("unsupported_by_backend", `${version.id} cannot ${lack}; name another ${role}`, { param: role });
  }
  return { name: pinned(name, version), contextLength };
}

export function contextOf(student: Able | null): number {
  if (student?.contextLength != null) return student.contextLength;
  throw fail("invalid_value", "fits_context: the student's context is not known; give a number of tokens", {
    param: "fits_context",
  });
}

/** A dataset without a single trace among them was meant for something else. */
const ROWS_LOOKED_AT = 100;

export const hasTrace = ({ reasoning_trace: trace }: TrainingRow): boolean => trace !== undefined;

export async function someRow(
  { count, row }: Pick<TrainingDataset, "count" | "row">,
  holds: (row: TrainingRow) => boolean,
): Promise<boolean> {
  for (let i = 0; i < Math.min(count, ROWS_LOOKED_AT); i++) if (holds(await row(i))) return true;
  return false;
}

async function checkFinetune(
  deps: DistillCheckDeps,
  { finetune, preview }: CreateDistillation,
  seed: number,
): Promise<{ finetune: Finetune; contextLength: number | null } | null> {
  if (!finetune) return null;
  if (preview !== undefined) {
    throw fail("invalid_value", "preview: a preview trains nobody; leave finetune out", { param: "preview" });
  }
  const { controls, ...training } = finetune;
  const request = { ...training, method: "sft", role: "student", dataset: TO_COME, seed } as const;
  try {
    const { config, contextLength } = await checkModels(deps, request);
    return { finetune: { training: config, controls: [...new Set(controls)] }, contextLength };
  } catch (error) {
    throw within("finetune", error);
  }
}

async function checkMeasurement(
  deps: DistillCheckDeps,
  { evaluate, finetune }: CreateDistillation,
  seed: number,
): Promise<DistillConfig["evaluate"]> {
  if (!evaluate) return null;
  if (!finetune) {
    throw fail(
      "invalid_value",
      "evaluate: without finetune there is no student to measure; POST /v1/evaluations measures any",
      {
        param: "evaluate",
      },
    );
  }
  try {
    const asked = { seed, ...evaluate, student: finetune.model, metadata: {} };
    const { student: _, weights_hash: __, ...measurement } = await checkEvaluation(deps, asked);
    return measurement;
  } catch (error) {
    throw within("evaluate", error);
  }
}

/** In place of the id of a dataset that the job has yet to write. */
const TO_COME = "output";

/** The path of a field inside a part of the request. */
function within(part: string, error: unknown): unknown {
  if (!(error instanceof Error) || !("param" in error) || typeof error.param !== "string") return error;
  const { code, param, message } = error as Error & { code: Parameters<typeof fail>[0]; param: string };
  return fail(code, message, { param: `${part}.${param}`, cause: error });
}
