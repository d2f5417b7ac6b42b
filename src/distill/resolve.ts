/** From what a caller asked for to a DistillConfig with every default filled in. Refuses what makes no sense, by its path. */
import { fail } from "../errors.ts";
import { DEFAULT_COEFFICIENTS } from "../rlt/reward.ts";
import { DEFAULT_LEAK_SHARE, DEFAULT_NEAR, type DistillConfig } from "./config.ts";
import { needsScore, type Predicate, type Selection, type Thresholds } from "./predicate.ts";
import type { DistillRequest, GivenSelection } from "./request.ts";

export interface Surroundings {
  /** In [0, 1), for a seed where none is given. */
  random: () => number;
}

/** Random seeds are 32-bit: short enough to copy by hand. */
const SEED_RANGE = 2 ** 32;

/** All but what is known of the models only: `fits_context: true` is filled in with the student's own context. */
export function resolveDistillation(
  request: DistillRequest,
  { random }: Surroundings,
): Omit<DistillConfig, "finetune" | "evaluate"> {
  const { student, samples_per_question: samples, temperature, top_p, top_k } = request;
  const select = selectionOf(request);
  if (temperature === 0 && samples > 1) {
    throw fail(
      "invalid_value",
      `temperature: at 0 all ${samples} explanations of a question are the same; raise it, or take one`,
      { param: "temperature" },
    );
  }
  if (student === undefined) refuseWithoutStudent(request, select);
  return {
    from: "teacher",
    teacher: request.teacher,
    student: student ?? null,
    dataset: request.dataset,
    samples_per_question: samples,
    sampling: { temperature, top_p, top_k, max_tokens: request.max_tokens ?? null },
    coefficients: {
      solution: { ...DEFAULT_COEFFICIENTS.solution, ...given(request.coefficients?.solution) },
      kl: { ...DEFAULT_COEFFICIENTS.kl, ...given(request.coefficients?.kl) },
    },
    kl: { estimator: "k1", k: 0 },
    select,
    filters: {
      // The method takes raw outputs as they are.
      format: request.well_formed ?? select.rule !== "raw",
      fits_context: typeof request.fits_context === "number" ? request.fits_context : null,
      dedupe: usualOr(request.dedupe, DEFAULT_NEAR),
      not_leaked: usualOr(request.not_leaked, DEFAULT_LEAK_SHARE),
    },
    target_rows: request.target_rows ?? null,
    preview: request.preview ?? null,
    budget: { tokens: request.budget?.tokens ?? null, seconds: request.budget?.seconds ?? null },
    seed: request.seed ?? Math.floor(random() * SEED_RANGE),
    name: request.name ?? null,
  };
}

/** true: as is usual; false or nothing: not at all. */
const usualOr = (asked: boolean | number | undefined, usual: number): number | null =>
  typeof asked === "number" ? asked : asked ? usual : null;

const given = <T extends object>(values: T | undefined): { [K in keyof T]: Exclude<T[K], undefined> } =>
  Object.fromEntries(Object.entries(values ?? {}).filter(([, value]) => value !== undefined)) as never;

function selectionOf({ select, student, samples_per_question: samples }: DistillRequest): Selection {
  if (select === undefined) return { rule: student !== undefined && samples > 1 ? "best" : "raw", where: null };
  if (typeof select === "string") return { rule: select, where: null };
  const rule = ({ first: "raw", best: "best", all: "all" } as const)[select.per_question];
  return { rule, where: predicateOf(select) };
}

function predicateOf(select: GivenSelection): Predicate | null {
  const thresholds: Thresholds = {};
  const { min_reward, min_solution_logprob, min_uplift, max_kl_mean, max_kl_max, where } = select;
  if (min_reward !== undefined) thresholds.reward = { gte: min_reward };
  if (min_solution_logprob !== undefined) thresholds["solution.logprob_mean"] = { gte: min_solution_logprob };
  if (min_uplift !== undefined) thresholds.uplift = { gte: min_uplift };
  if (max_kl_mean !== undefined) thresholds["kl.mean"] = { lte: max_kl_mean };
  if (max_kl_max !== undefined) thresholds["kl.max"] = { lte: max_kl_max };
  const all = [...(Object.keys(thresholds).length > 0 ? [thresholds] : []), ...(where ? [where] : [])];
  return all.length > 1 ? { all } : (all[0] ?? null);
}

function refuseWithoutStudent({ fits_context: fits }: DistillRequest, { rule, where }: Selection): void {
  const wanting = rule === "best" || (where && needsScore(where)) ? "select" : fits ? "fits_context" : undefined;
  if (wanting === undefined) return;
  throw fail("invalid_value", `student is required: ${wanting} asks for what only a student can say`, {
    param: "student",
  });
}
