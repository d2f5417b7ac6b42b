/** All that can be wrong with an evaluation before it is queued. */
import { fail } from "../../errors.ts";
import { checkerOf } from "../../evaluate/answers.ts";
import {
  DEFAULT_MAX_TOKENS,
  DEFAULT_TEMPERATURE,
  type EvaluationConfig,
  MAX_EVALUATED_ROWS,
  rowsOf,
} from "../../evaluate/config.ts";
import { studentFormat } from "../../rlt/formats.ts";
import { studentPrompt } from "../../rlt/prompts.ts";
import type { DatasetSource } from "../../train/datasets.ts";
import type { TrainingDataset } from "../../train/job-deps.ts";
import type { Prepared } from "../models/preparation.ts";
import type { ModelService } from "../models/service.ts";
import { pinned } from "../training/jobs/check.ts";
import type { CreateEvaluation } from "./schemas.ts";

export interface EvaluationCheckDeps {
  models: Pick<ModelService, "prepare" | "text">;
  datasets: DatasetSource;
  random: () => number;
}

/** As many as a request's own seed may have bits without losing any in JSON. */
const SEED_RANGE = 2 ** 32;

export async function checkEvaluation(deps: EvaluationCheckDeps, body: CreateEvaluation): Promise<EvaluationConfig> {
  const { student: name, samples, held_out: heldOut = null, limit = null } = body;
  const temperature = body.temperature ?? (samples === 1 ? 0 : DEFAULT_TEMPERATURE);
  if (temperature === 0 && samples > 1) {
    throw fail(
      "invalid_value",
      `temperature: at 0 all ${samples} samples of a question are the same; raise it, or take one sample`,
      { param: "temperature" },
    );
  }
  const asked = { role: "student", param: "student" } as const;
  const { text, format, contextLength } = await deps.models.text(name, { ...asked, needs: { sample: true } });
  const { version, prepared } = await deps.models.prepare(name, asked);
  const dataset = await deps.datasets.open(body.dataset);
  const rows = await rowsOf(dataset, { held_out: heldOut, limit });
  const [first] = rows;
  if (first === undefined) {
    const [param, what] = heldOut ? ["held_out", "that part of the dataset"] : ["dataset", "it"];
    throw fail("invalid_value", `${param}: ${what} has no rows`, { param });
  }
  if (rows.length > MAX_EVALUATED_ROWS) {
    throw fail(
      "invalid_value",
      `limit: the dataset has ${rows.length} rows; at most ${MAX_EVALUATED_ROWS} are evaluated at a time: give limit or held_out`,
      { param: "limit" },
    );
  }
  const config: EvaluationConfig = {
    student: pinned(name, version),
    weights_hash: weightsHashOf(prepared),
    dataset: body.dataset,
    content_hash: dataset.contentHash,
    held_out: heldOut,
    limit,
    answer: body.answer,
    max_tokens: maxTokens(body.max_tokens, version.id, contextLength),
    temperature,
    top_p: body.top_p,
    samples,
    seed: body.seed ?? Math.floor(deps.random() * SEED_RANGE),
  };
  await checkRows(dataset, rows, config);
  // A student without a chat template would answer no row at all.
  await text.encodePrompt(studentPrompt(studentFormat(format), (await dataset.row(first)).question));
  return config;
}

/** Null: the weights are a remote server's own affair. */
export function weightsHashOf(prepared: Prepared): string | null {
  if (prepared.kind === "remote") return null;
  const { checkpoint, adapter } = prepared;
  return adapter ? `${checkpoint.weightsHash} ${adapter.hash}` : checkpoint.weightsHash;
}

function maxTokens(asked: number | undefined, id: string, contextLength: number | null): number {
  if (contextLength === null) return asked ?? DEFAULT_MAX_TOKENS;
  if (asked === undefined) return Math.min(DEFAULT_MAX_TOKENS, contextLength - 1);
  if (asked < contextLength) return asked;
  throw fail(
    "context_length_exceeded",
    `max_tokens: ${asked} tokens and a question are more than the ${contextLength} tokens of ${id}'s context; lower it, or register the student with a longer context_length`,
    { param: "max_tokens" },
  );
}

/** Rows looked at for what their check needs before an evaluation is accepted; others count as wrong, with the reason. */
const ROWS_CHECKED = 1_000;

async function checkRows(
  dataset: TrainingDataset,
  rows: readonly number[],
  { answer }: Pick<EvaluationConfig, "answer">,
): Promise<void> {
  const checker = checkerOf(answer);
  for (const index of rows.slice(0, ROWS_CHECKED)) {
    const { solution, metadata } = await dataset.row(index);
    const fault = checker.fault({ solution, metadata });
    if (fault === null) continue;
    throw fail(
      "invalid_value",
      `dataset: row ${index + 1} ${fault}, which the answer ${answer.type} is compared with; choose another answer, or correct the dataset`,
      { param: "dataset" },
    );
  }
}
