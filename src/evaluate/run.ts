/**
 * Lets a student answer questions and checks what it says. A row is finished when all its samples are; finished rows are in the
 * journal and never made again. Every draw is named by (seed, row, sample), so that two evaluations with one seed, or one that was
 * interrupted, differ by the weights alone.
 */
import { mapLimited } from "../concurrency.ts";
import { type ErrorCode, PreceptorError } from "../errors.ts";
import type { Journal } from "../jobs/journal.ts";
import { answerClose, answerOf } from "../rlt/answer.ts";
import { type StudentFormat, studentFormat } from "../rlt/formats.ts";
import { studentPrompt } from "../rlt/prompts.ts";
import type { ServedModel, TrainingRow } from "../train/job-deps.ts";
import { rollout } from "../train/rollout.ts";
import { derivedSeed } from "../train/seeds.ts";
import { type AnswerSpec, checkerOf } from "./answers.ts";
import type { Checker } from "./checkers/checker.ts";
import type { EvaluationConfig } from "./config.ts";
import type { EvaluatedRow, EvaluatedSample } from "./records.ts";
import { type EvaluationSummary, figuresOf, type RowFigures, summarise } from "./summary.ts";

export interface Evaluation {
  /** Numbers of rows of the dataset, in the order in which they are begun. */
  rows: readonly number[];
  row(index: number): Promise<TrainingRow>;
  answer: AnswerSpec;
  maxTokens: number;
  /** 0 is greedy. */
  temperature: number;
  topP: number;
  samples: number;
  seed: number;
}

/** `rows`: those that the configuration means. */
export function evaluationOf(
  config: Pick<EvaluationConfig, "answer" | "max_tokens" | "temperature" | "top_p" | "samples" | "seed">,
  { rows, row }: Pick<Evaluation, "rows" | "row">,
): Evaluation {
  const { answer, max_tokens: maxTokens, temperature, top_p: topP, samples, seed } = config;
  return { rows, row, answer, maxTokens, temperature, topP, samples, seed };
}

export interface EvaluateDeps {
  student: Pick<ServedModel, "engine" | "adapter" | "text" | "format" | "contextLength" | "eosIds">;
  /** Of this evaluation alone. */
  journal: Journal<EvaluatedRow>;
  /** Ends it at once; what is under way is lost. */
  signal: AbortSignal;
  /** Does again what an engine that is busy, or a server that is away, refused. */
  patiently<T>(attempt: () => Promise<T>, signal: AbortSignal): Promise<T>;
  /** Looked at before each row; anything but null begins no further one. */
  stop?(): unknown;
  /** A row is in the journal, together with how many are by now; awaited. */
  finished?(row: EvaluatedRow, figures: ReadonlyMap<number, RowFigures>): Promise<void> | void;
}

export interface Evaluated {
  /** Of the rows that are finished. */
  summary: EvaluationSummary;
  /** By row. */
  figures: ReadonlyMap<number, RowFigures>;
  /** No row is left. */
  complete: boolean;
}

/**
 * Sequences asked of the engine at a time: twice what it decodes for one client (engine/onnx/limits.ts), so that another row stands
 * ready whenever one ends; well below what it lets wait.
 */
const SEQUENCES_UNDER_WAY = 128;

export async function evaluate(deps: EvaluateDeps, evaluation: Evaluation): Promise<Evaluated> {
  const { journal, signal } = deps;
  const { rows, samples } = evaluation;
  const figures = new Map<number, RowFigures>();
  for (const index of rows) {
    const kept = await journal.get(index);
    if (kept) figures.set(index, figuresOf(kept));
  }
  const answering = { format: studentFormat(deps.student.format), checker: checkerOf(evaluation.answer) };
  const missing = rows.filter((index) => !figures.has(index));
  const underWay = Math.max(1, Math.floor(SEQUENCES_UNDER_WAY / samples));
  await mapLimited(missing, underWay, async (index) => {
    if (deps.stop?.()) return;
    signal.throwIfAborted();
    const finished = await evaluateRow(deps, evaluation, answering, index);
    await journal.append(finished);
    figures.set(index, figuresOf(finished));
    await deps.finished?.(finished, figures);
  });
  return { summary: summarise(figures.values(), samples), figures, complete: figures.size === rows.length };
}

interface Answering {
  format: StudentFormat;
  checker: Checker;
}

async function evaluateRow(
  { student, signal, patiently }: EvaluateDeps,
  evaluation: Evaluation,
  { format, checker }: Answering,
  index: number,
): Promise<EvaluatedRow> {
  const { question, solution, metadata, id } = await evaluation.row(index);
  const named = { row: index, ...(id === undefined ? {} : { id }) };
  const unfit = checker.fault({ solution, metadata });
  if (unfit !== null) return failed(named, "invalid_value", `the row ${unfit}`);
  try {
    const { ids: promptIds } = await student.text.encodePrompt(studentPrompt(format, question));
    const room = student.contextLength - promptIds.length;
    if (room < 1) {
      return failed(
        named,
        "context_length_exceeded",
        `the prompt has ${promptIds.length} tokens; the student's context is ${student.contextLength}`,
      );
    }
    const completions = await patiently(
      () =>
        rollout(
          student,
          student.text,
          { close: answerClose(format) ?? "" },
          {
            promptIds,
            n: evaluation.samples,
            temperature: evaluation.temperature,
            topP: evaluation.topP,
            maxTokens: Math.min(evaluation.maxTokens, room),
            seed: derivedSeed(evaluation.seed, index),
            eosIds: student.eosIds,
            signal,
          },
        ),
      signal,
    );
    // A sample that was cancelled looks like one that the limit cut off.
    signal.throwIfAborted();
    const samples = completions.map(({ text, ids, ended }): EvaluatedSample => {
      const answer = answerOf(format, text);
      const { correct, extracted } = checker.check({ answer: answer.text, solution, metadata });
      const read = { correct, extracted, answer_found: answer.found };
      return { ...read, completion: text, tokens: ids.length, truncated: !ended };
    });
    return { ...named, samples };
  } catch (error) {
    if (!(error instanceof PreceptorError && OF_THE_ROW.has(error.code))) throw error;
    return failed(named, error.code, error.message);
  }
}

/** What a row's own text can bring about; everything else concerns the model or the server. */
const OF_THE_ROW: ReadonlySet<ErrorCode> = new Set(["context_length_exceeded", "chat_template_failed"]);

const failed = (named: { row: number; id?: string }, code: ErrorCode, message: string): EvaluatedRow => ({
  ...named,
  samples: [],
  error: { code, message },
});
