/** What a job leaves behind: accepted rows as one dataset, rejected ones with their reasons as another. */
import { createHash } from "node:crypto";
import type { DatasetRow } from "../datasets/row.ts";
import type { DatasetSource } from "../db/dataset-store.ts";
import { newId } from "../ids.ts";
import { derivedSeed } from "../train/seeds.ts";
import type { DistillConfig } from "./config.ts";
import { type Outcome, outcomes } from "./generate.ts";
import type { DistillDeps, SourceDataset, SourceRow } from "./job-deps.ts";
import { hashOfTexts } from "./known.ts";
import { scoringTemperature } from "./question.ts";
import { type Rank, ranksOf } from "./ranks.ts";
import { partsOf, type SampleRecord, type ScoreRecord } from "./records.ts";
import type { Reason, Verdict } from "./select.ts";

export interface Written {
  /** Null: no row was accepted, or none rejected. */
  output: string | null;
  errors: string | null;
  accepted: number;
  rejected: Partial<Record<Reason, number>>;
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
  const all = () => outcomes(deps, job.id, config, dataset, questions);
  const ranks = config.from === "rows" ? await ranksOf(all()) : null;
  const rejected: Written["rejected"] = {};
  const keep = (part: "output" | "errors", of: keyof OutcomeRows) =>
    deps.keep(
      {
        id: datasetId(job.id, part),
        name: config.name && (part === "output" ? config.name : `${config.name}-errors`),
        source: sourceOf(job.id, part, config),
      },
      async (writer) => {
        for await (const outcome of all()) {
          signal.throwIfAborted();
          for (const row of rowsOf(outcome, job.id, config, ranks)[of]) await writer.add(row);
        }
      },
      signal,
    );
  let accepted = 0;
  for await (const outcome of all()) {
    for (const { reason } of [...judged(outcome, config, ranks), ...listed(outcome.selected.unusable)]) {
      if (reason === null) accepted++;
      else rejected[reason] = (rejected[reason] ?? 0) + 1;
    }
  }
  const output = await keep("output", "accepted");
  const errors = await keep("errors", "rejected");
  return { output: output?.id ?? null, errors: errors?.id ?? null, accepted, rejected };
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

export interface OutcomeRows {
  accepted: DatasetRow[];
  rejected: DatasetRow[];
}

/** What becomes of a question: rows, and what might have been rows. */
export function rowsOf(
  outcome: Outcome,
  job: string,
  config: DistillConfig,
  ranks: ReadonlyMap<number, Rank> | null = null,
): OutcomeRows {
  const { unusable } = outcome.selected;
  const rows: OutcomeRows = { accepted: [], rejected: [] };
  if (unusable) rows.rejected.push(asRow(outcome.row, "", { ...origin(outcome, job, config), ...unusable }));
  for (const verdict of judged(outcome, config, ranks)) {
    const row = rowOf(outcome, verdict, job, config);
    const rank = ranks?.get(outcome.record.row);
    if (rank) row.provenance = { ...row.provenance, ...rank };
    rows[verdict.reason === null ? "accepted" : "rejected"].push(row);
  }
  return rows;
}

/** Candidates that came as rows are chosen among when all of them are known. */
function judged(
  { record, selected }: Outcome,
  { select }: DistillConfig,
  ranks: ReadonlyMap<number, Rank> | null,
): Verdict[] {
  if (!ranks || select.rule !== "best") return selected.verdicts;
  const first = ranks.get(record.row)?.rank === 1;
  return selected.verdicts.map((verdict) =>
    verdict.reason === null && !first ? { ...verdict, reason: "not_chosen" } : verdict,
  );
}

const listed = <T>(one: T | null): T[] => (one === null ? [] : [one]);

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
  return { job, row: record.row, teacher, student, attempts: record.samples.length, surprise: record.surprise };
}

function sampleOf(sample: SampleRecord, { row, record }: Outcome, config: DistillConfig): object {
  const { score } = sample;
  const { from, sampling, seed, kl } = config;
  return {
    ...(from === "rows"
      ? {}
      : {
          sample: sample.sample,
          seed: derivedSeed(seed, record.row),
          sampling: { ...sampling },
          finish_reason: sample.finish,
        }),
    completion_tokens: sample.tokens,
    violations: sample.violations,
    score: score && { ...partsOf(sample, record.surprise), text_tokens: score.text_tokens },
    ...(score
      ? {
          scoring: { temperature: scoringTemperature(config), ...kl, text_hash: hashOfTexts(row, sample.explanation) },
          tokens: short(score.tokens),
        }
      : {}),
    ...(sample.error ? { error: sample.error.message } : {}),
  };
}

/** Digits of a token's log-prob that anybody looks at; a row carries hundreds of them. */
const DIGITS = 4;

function short({ thought, solution }: ScoreRecord["tokens"]): ScoreRecord["tokens"] {
  const rounded = (values: readonly (number | null)[]) =>
    values.map((value) => (value === null ? null : Number(value.toPrecision(DIGITS))));
  return {
    thought: { ends: thought.ends, logprobs: rounded(thought.logprobs) as number[], kl: rounded(thought.kl) },
    solution: { ends: solution.ends, logprobs: rounded(solution.logprobs) as number[] },
  };
}
