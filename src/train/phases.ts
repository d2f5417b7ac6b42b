/** The loops of a job over the rows of its dataset. */
import { fail } from "../errors.ts";
import { studentFormat, teacherFormat } from "../rlt/formats.ts";
import { type TrainingConfig, totalSteps } from "./config.ts";
import type { ModelInUse, ServedModel, TrainingDataset, TrainingDeps } from "./job-deps.ts";
import type { Policy } from "./policy.ts";
import type { Reference } from "./reference.ts";
import { rlt } from "./rlt.ts";
import { checkLength, type ExampleRow, studentRow, teacherRow } from "./rows.ts";
import type { Clock, RunReport, RunState, Stopped } from "./run.ts";
import { sft } from "./sft.ts";

export interface Phase {
  deps: TrainingDeps;
  config: TrainingConfig;
  model: ModelInUse;
  student: ServedModel | null;
  dataset: TrainingDataset;
  /** `param`: where the request names the dataset that is looked at. */
  rows: { train: number[]; heldOut: { dataset: TrainingDataset; indices: number[]; param: string } };
  policy: Policy;
  report: RunReport;
  signal: AbortSignal;
  clock: Clock;
}

export async function runSft(
  phase: Phase,
  hyperparameters: TrainingConfig["hyperparameters"],
  role: "teacher" | "student",
  state: RunState,
): Promise<Stopped | null> {
  const { config, model, dataset, policy, report, signal, clock } = phase;
  const { train, heldOut } = phase.rows;
  const example = async (from: TrainingDataset, index: number, param: string) => {
    const { question, solution, reasoning_trace: trace } = await from.row(index);
    const row: ExampleRow = { question, solution, explanation: trace ?? "" };
    if (role === "teacher" && trace === undefined) {
      throw fail(
        "invalid_value",
        `row ${index + 1} has no reasoning_trace, from which a teacher would learn to explain`,
        { param },
      );
    }
    const sequence =
      role === "teacher"
        ? await teacherRow(model.text, teacherFormat(model.format), row)
        : await studentRow(model.text, studentFormat(model.format), row);
    checkLength(sequence, model.contextLength, index, param);
    return sequence;
  };
  return sft(
    {
      policy,
      hyperparameters,
      totalSteps: totalSteps(hyperparameters, train.length),
      seed: config.seed,
      rows: train.length,
      numberOf: (row) => train[row]!,
      example: (row) => example(dataset, train[row]!, "dataset"),
      heldOut: await Promise.all(heldOut.indices.map((index) => example(heldOut.dataset, index, heldOut.param))),
      report,
      clock,
      signal,
    },
    state,
  );
}

export async function runRlt(phase: Phase, state: RunState, reference: Reference): Promise<Stopped | null> {
  const { deps, config, model, student, dataset, policy, report, signal, clock } = phase;
  const { hyperparameters } = config;
  const { train, heldOut } = phase.rows;
  const rows = (from: TrainingDataset, indices: readonly number[]) =>
    Promise.all(indices.map((index) => from.row(index)));
  return rlt(
    {
      policy,
      reference: hyperparameters.beta > 0 ? reference.current : null,
      pull: hyperparameters.sync_ref_model
        ? () => reference.pull(policy.training, hyperparameters.ref_model_mixup_alpha)
        : null,
      corrects: config.rollout_precision === "q8",
      hyperparameters,
      totalSteps: totalSteps(hyperparameters, train.length),
      seed: config.seed,
      rows: await rows(dataset, train),
      numberOf: (row) => train[row]!,
      heldOut: await rows(heldOut.dataset, heldOut.indices),
      rewards: config.rewards,
      deps: {
        teacher: { text: model.text, format: teacherFormat(model.format), eosIds: model.eosIds },
        student: student && {
          engine: student.engine,
          adapter: student.adapter,
          text: student.text,
          format: studentFormat(student.format),
        },
        temperature: hyperparameters.temperature,
        allowedHosts: deps.allowedHosts,
        fetch: deps.fetch,
      },
      report,
      clock,
      signal,
    },
    state,
  );
}
