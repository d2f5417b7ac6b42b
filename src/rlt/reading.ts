/** One model's view of a scored text: its tokens, where the explanation lies in them, and their log-probs. */
import type { EngineModel, LogprobsResult, LogprobsSequence, RequestOptions } from "../engine/engine.ts";
import { fail } from "../errors.ts";
import type { AdapterFiles } from "../model/checkpoint.ts";
import type { Encoded, TextModel } from "../text/text.ts";
import type { StudentFormat } from "./formats.ts";
import { SOLUTION, studentText, THOUGHT } from "./prompts.ts";
import { type TokenSpan, tokensInside } from "./spans.ts";

export interface ScoringModel<Format> {
  engine: EngineModel;
  text: TextModel;
  adapter: AdapterFiles | null;
  format: Format;
}

/** Who asks, how urgent it is, and what ends it: handed on to every engine call. */
export type Asking = Pick<RequestOptions, "client" | "priority" | "signal">;

export interface LogprobOptions extends Asking {
  temperature: number;
  /** Also rank and entropy of every token. */
  tokens?: boolean;
  topK?: number;
  /** An engine that would have to estimate refuses instead. */
  exact?: boolean;
}

export interface Side {
  encoded: Encoded;
  /** Tokens of the explanation. */
  thought: TokenSpan;
  thoughtStart: number;
}

export interface Reading extends Side {
  solution: TokenSpan;
  solutionStart: number;
}

/** The tokens of one model's text. Throws `context_length_exceeded` with both numbers. */
export async function side<F>(
  model: ScoringModel<F>,
  request: Parameters<TextModel["encodePrompt"]>[0],
  field: string,
): Promise<Side> {
  const encoded = await model.text.encodePrompt(request);
  const { length } = encoded.ids;
  if (length > model.engine.contextLength) {
    throw fail(
      "context_length_exceeded",
      `question, explanation and solution take ${length} tokens; the model's context is ${model.engine.contextLength}`,
    );
  }
  const range = encoded.fields[field] ?? { start: 0, end: 0 };
  return { encoded, thought: predicted(tokensInside(encoded.ends, range)), thoughtStart: range.start };
}

/** Nothing predicts a sequence's first token (a template without a prompt, a tokenizer without BOS): it has no log-prob. */
export function predicted({ from, to }: TokenSpan): TokenSpan {
  return { from: Math.max(from, 1), to: Math.max(to, 1) };
}

/**
 * What the student reads, and where explanation and solution lie in it. Throws `context_length_exceeded`, and
 * `invalid_value` for a solution without a token of its own.
 */
export async function readByStudent(
  student: ScoringModel<StudentFormat>,
  question: string,
  solution: string,
  thought: string,
): Promise<Reading> {
  const read = await side(student, studentText(student.format, question, solution, thought), THOUGHT);
  const range = read.encoded.fields[SOLUTION] ?? { start: 0, end: 0 };
  const span = predicted(tokensInside(read.encoded.ends, range));
  if (span.from >= span.to) {
    throw fail(
      "invalid_value",
      "no token lies wholly inside the solution: in the student's format it merges with the text around it; use a format " +
        "with tags or padding around the solution",
      { param: "solution" },
    );
  }
  return { ...read, solution: span, solutionStart: range.start };
}

/** Log-probs of the tokens of a span (N = to − from rows). */
export async function scoreSpan(
  model: ScoringModel<unknown>,
  encoded: Pick<Encoded, "ids">,
  span: TokenSpan,
  options: LogprobOptions,
): Promise<LogprobsResult> {
  return scoreOne(model, { ids: encoded.ids, ...span }, options);
}

/** Log-probs of one sequence under a model with its adapter. */
export async function scoreOne(
  model: ScoringModel<unknown>,
  sequence: LogprobsSequence,
  options: LogprobOptions,
): Promise<LogprobsResult> {
  const [result] = await model.engine.logprobs({
    sequences: [sequence],
    temperature: options.temperature,
    adapter: model.adapter,
    ...(options.tokens ? { rank: true, entropy: true } : {}),
    ...(options.topK ? { topK: options.topK } : {}),
    ...(options.exact ? { exact: true } : {}),
    ...askingOf(options),
  });
  if (!result) throw fail("engine_failed", "the engine answered no log-probs for a sequence");
  return result;
}

export function askingOf({ client, priority, signal }: Asking): Asking {
  return { client, priority, signal };
}
