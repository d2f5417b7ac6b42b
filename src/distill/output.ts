/** What a job leaves behind: accepted rows as one dataset, rejected ones with their reasons as another. */
import { createHash } from "node:crypto";
import type { DatasetRow } from "../datasets/row.ts";
import type { DatasetWriter } from "../datasets/writer.ts";
import type { DatasetSource } from "../db/dataset-store.ts";
import { newId } from "../ids.ts";
import { derivedSeed } from "../train/seeds.ts";
import type { DistillConfig } from "./config.ts";
import { type Outcome, outcomes } from "./generate.ts";
import type { DistillDeps, SourceDataset, SourceRow } from "./job-deps.ts";
import { partsOf, type SampleRecord } from "./records.ts";
import type { Verdict } from "./select.ts";

export interface Written {
  /** Null: no row was accepted, or none rejected. */
  output: string | null;
  errors: string | null;
  accepted: number;
}

/** Both datasets from the first `questions` records. To do it again changes nothing. */
export async function writeDatasets(
  deps: DistillDeps,
  job: { id: string },
  config: DistillConfig,
  dataset: SourceDataset,
  questions: number,
  signal: AbortSignal,
): Promise<Written> {
  const keep = (part: "output" | "errors", add: (writer: DatasetWriter, outcome: Outcome) => Promise<void>) =>
    deps.keep(
      {
        id: datasetId(job.id, part),
        name: config.name && (part === "output" ? config.name : `${config.name}-errors`),
        source: sourceOf(job.id, part, config),
      },
      async (writer) => {
        for await (const outcome of outcomes(deps, job.id, config, dataset, questions)) {
          signal.throwIfAborted();
          await add(writer, outcome);
        }
      },
      signal,
    );
  const output = await keep("output", async (writer, outcome) => {
    for (const verdict of outcome.selected.verdicts) {
      if (verdict.reason === null) await writer.add(rowOf(outcome, verdict, job.id, config));
    }
  });
  const errors = await keep("errors", async (writer, outcome) => {
    const { unusable } = outcome.selected;
    if (unusable) await writer.add(asRow(outcome.row, "", { ...origin(outcome, job.id, config), ...unusable }));
    for (const verdict of outcome.selected.verdicts) {
      if (verdict.reason !== null) await writer.add(rowOf(outcome, verdict, job.id, config));
    }
  });
  return { output: output?.id ?? null, errors: errors?.id ?? null, accepted: output?.rows ?? 0 };
}

/** As the head of what a job makes tells where it came from. */
export const sourceOf = (job: string, part: string, { dataset, teacher, student }: DistillConfig): DatasetSource => ({
  type: "job",
  job,
  part,
  dataset,
  teacher,
  student,
});

/** The same for ever, so that a worker that was killed between writing a dataset and saying so finds it. */
export const datasetId = (job: string, part: string): string =>
  newId("ds", (bytes) => createHash("sha256").update(`${job}\n${part}`).digest().subarray(0, bytes));

function rowOf(outcome: Outcome, { sample, reason, detail }: Verdict, job: string, config: DistillConfig): DatasetRow {
  const why = reason === null ? {} : { reason, ...(detail === undefined ? {} : { detail }) };
  const provenance = { ...origin(outcome, job, config), ...sampleOf(sample, outcome, config), ...why };
  return asRow(outcome.row, sample.explanation, provenance);
}

/** The row's own words unchanged, and where it stands. */
function asRow({ id, question, solution, metadata }: SourceRow, explanation: string, provenance: object): DatasetRow {
  return {
    ...(id === undefined ? {} : { id }),
    question,
    solution,
    ...(explanation === "" ? {} : { reasoning_trace: explanation }),
    ...(metadata === undefined ? {} : { metadata }),
    provenance: provenance as Record<string, unknown>,
  };
}

/** `attempts`: explanations that were drawn for the question. */
function origin({ record }: Outcome, job: string, config: DistillConfig): object {
  const { teacher, student } = config;
  return { job, row: record.row, teacher, student, attempts: record.samples.length };
}

function sampleOf(sample: SampleRecord, { record }: Outcome, { from, sampling, seed }: DistillConfig): object {
  const { score } = sample;
  return {
    ...(from === "rows"
      ? {}
      : {
          sample: sample.sample,
          seed: derivedSeed(seed, record.row),
          sampling: { ...sampling },
          finish_reason: sample.finish,
        }),
    tokens: sample.tokens,
    violations: sample.violations,
    score: score && { ...partsOf(sample, record.baseline), text_tokens: score.text_tokens },
    ...(sample.error ? { error: sample.error.message } : {}),
  };
}
