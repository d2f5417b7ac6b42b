/** Jobs of every kind by their ids, and how each is told in a line. */
import type { DistillationJob } from "../../api/distillation/schemas.ts";
import type { Evaluation } from "../../api/evaluations/schemas.ts";
import type { TrainingJob } from "../../api/training/jobs/schemas.ts";
import { fixed } from "../../numbers.ts";

export type AnyJob = TrainingJob | DistillationJob | Evaluation;

export interface JobKind<Job = AnyJob> {
  prefix: string;
  base: string;
  method(job: Job): string;
  steps(job: Job): string;
  model(job: Job): string;
  underWay(job: Job): string[];
  /** Behind its status. */
  ended(job: Job): string;
}

const training: JobKind<TrainingJob> = {
  prefix: "tjob_",
  base: "/v1/training/jobs",
  method: ({ method }) => method,
  steps: ({ progress }) => `${progress.step}/${progress.total_steps ?? "?"}`,
  model: ({ config }) => String(config.model),
  underWay: (job) => [`step ${training.steps(job)}`, ...metricsOf(job, ["reward", "kl", "loss"])],
  ended(job) {
    const { teacher, student, checkpoint } = job.result ?? {};
    return `at step ${training.steps(job)}: ${teacher ?? student ?? checkpoint ?? "no checkpoint"}`;
  },
};

const distillation: JobKind<DistillationJob> = {
  prefix: "djob_",
  base: "/v1/distillation/jobs",
  method: () => "distil",
  steps: ({ progress }) => `${progress.questions}/${progress.total_questions ?? "?"}`,
  model: ({ config }) => String(config.teacher ?? config.student),
  underWay: (job) => [
    `${job.progress.stage}${job.progress.part === null ? "" : ` ${job.progress.part}`}`,
    `question ${distillation.steps(job)}`,
    `${job.progress.accepted} rows`,
    ...metricsOf(job, ["reward"]),
  ],
  ended: ({ progress, output_dataset: output, result }) =>
    `with ${progress.accepted} rows: ${[output ?? "no dataset", ...listed(result?.student)].join(", ")}`,
};

const evaluation: JobKind<Evaluation> = {
  prefix: "eval_",
  base: "/v1/evaluations",
  method: () => "evaluate",
  steps: ({ progress }) => `${progress.step}/${progress.total_steps ?? "?"}`,
  model: ({ student }) => student,
  underWay: (job) => [`row ${evaluation.steps(job)}`],
  ended: (job) => `at row ${evaluation.steps(job)}${job.result ? `: accuracy ${fixed(job.result.accuracy)}` : ""}`,
};

export const KINDS = [training, distillation, evaluation] as readonly JobKind<never>[] as readonly JobKind[];

/** An id that no kind claims is asked for among the training jobs, whose answer says that there is none. */
export const kindOf = (id: string): JobKind => KINDS.find(({ prefix }) => id.startsWith(prefix)) ?? KINDS[0]!;

function metricsOf({ metrics }: Pick<AnyJob, "metrics">, names: readonly string[]): string[] {
  return names.flatMap((name) => {
    const value = metrics[name];
    return typeof value === "number" ? [`${name} ${value.toPrecision(3)}`] : [];
  });
}

const listed = (value: unknown): string[] => (typeof value === "string" ? [value] : []);
