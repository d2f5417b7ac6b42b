/**
 * The closed loop. Each round trains the teacher against the student as it is, has the teacher write explanations, trains the
 * student on the best of them, and measures it. The next round begins with the student that came out.
 */
import type { Api, Job, JobEvent } from "./api.ts";

export interface LoopOptions {
  rounds: number;
  /** Registered models; each round adds a version to both. */
  teacher: string;
  student: string;
  /** Questions with solutions to learn from, and others to be measured on. */
  dataset: string;
  heldOut: string;
  /** How answers are checked: `math`, `exact`, `countdown`, … */
  answer: string;
  /** Added to the bodies of the requests: hyperparameters, lora, max_tokens, … */
  training?: object;
  distillation?: object;
  finetune?: object;
  evaluation?: object;
}

export interface Round {
  round: number;
  teacher: string;
  student: string;
  rows: string;
  accuracy: { before: number | null; after: number | null };
  /** Every artefact of the round with what it was made of. */
  lineage: Artefact[];
}

export interface Artefact {
  id: string;
  parents: string[];
}

interface Measured {
  before: { accuracy: number | null };
  after: { accuracy: number | null };
}

export async function closedLoop(api: Api, options: LoopOptions, print: (line: string) => void): Promise<Round[]> {
  const rounds: Round[] = [];
  let { teacher, student } = options;
  for (let round = 1; round <= options.rounds; round++) {
    print(`round ${round}: ${teacher} learns to explain to ${student}`);
    const { dataset } = options;
    const taught = await api.run(
      "/v1/training/jobs",
      { method: "rlt", teacher, student, dataset, ...options.training },
      told(print),
    );
    const nextTeacher = String(taught.result?.teacher);

    print(`round ${round}: ${nextTeacher} explains, ${student} learns`);
    const distilled = await api.run(
      "/v1/distillation/jobs",
      {
        teacher: nextTeacher,
        student,
        dataset,
        select: "best",
        samples_per_question: 4,
        ...options.distillation,
        finetune: { model: student, ...options.finetune },
        evaluate: { dataset: options.heldOut, answer: options.answer, ...options.evaluation },
      },
      told(print),
    );
    const nextStudent = String(distilled.result?.student);
    const { before, after } = evaluationOf(distilled);
    const found: Round = {
      round,
      teacher: nextTeacher,
      student: nextStudent,
      rows: String(distilled.output_dataset),
      accuracy: { before: before.accuracy, after: after.accuracy },
      lineage: lineageOf({ taught, distilled, dataset }),
    };
    rounds.push(found);
    print(`round ${round}: accuracy ${shown(before.accuracy)} -> ${shown(after.accuracy)}`);
    for (const { id, parents } of found.lineage) print(`  ${id} <- ${parents.join(", ")}`);
    [teacher, student] = [nextTeacher, nextStudent];
  }
  return rounds;
}

function evaluationOf({ id, result }: Job): Measured {
  if (!result?.evaluation) throw new Error(`${id} has not measured its student`);
  return result.evaluation as Measured;
}

/** Jobs name in `config` what they worked with, each model with its version, and in `result` what they made. */
function lineageOf({ taught, distilled, dataset }: { taught: Job; distilled: Job; dataset: string }): Artefact[] {
  const { config, result } = distilled;
  const rows = String(distilled.output_dataset);
  const { training } = config.finetune as { training: { model: string } };
  const policy = taught.config as { model: string; student: string };
  return [
    { id: String(taught.result?.checkpoint), parents: [taught.id] },
    { id: String(taught.result?.teacher), parents: [String(taught.result?.checkpoint)] },
    { id: taught.id, parents: [policy.model, policy.student, dataset] },
    { id: distilled.id, parents: [String(config.teacher), String(config.student), training.model, dataset] },
    { id: rows, parents: [distilled.id] },
    { id: String(result?.checkpoint), parents: [distilled.id, rows] },
    { id: String(result?.student), parents: [String(result?.checkpoint)] },
  ];
}

const told =
  (print: (line: string) => void) =>
  ({ type, data }: JobEvent): void => {
    if (type !== "job.metrics") return;
    const { step, ...values } = data as { step: number } & Record<string, unknown>;
    print(`    step ${step}: ${JSON.stringify(values.values ?? values)}`);
  };

const shown = (accuracy: number | null): string => (accuracy === null ? "unknown" : `${(accuracy * 100).toFixed(1)} %`);
