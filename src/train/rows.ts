/** Rows of a dataset as what a model learns from: rendered by the same code that prompts it later. */
import type { TrainingSequence } from "../engine/engine.ts";
import { fail } from "../errors.ts";
import type { StudentFormat, TeacherFormat } from "../rlt/formats.ts";
import { studentText, THOUGHT, teacherText } from "../rlt/prompts.ts";
import { tokensInside } from "../rlt/spans.ts";
import type { ByteRange, Encoded, PromptRequest } from "../text/text.ts";

export interface ExampleRow {
  question: string;
  solution: string;
  /** What a teacher writes and a student thinks; empty: the student learns to answer without thinking. */
  explanation: string;
}

/** A `TextModel`, or what stands for one where the tokenizer lives in the caller's own thread. */
export interface PromptEncoder {
  encodePrompt(request: PromptRequest): Encoded | Promise<Encoded>;
}

/** Question → explanation → solution, with the loss on the student's whole turn (method.md, "Distillation"). */
export async function studentRow(
  text: PromptEncoder,
  format: StudentFormat,
  row: ExampleRow,
): Promise<TrainingSequence> {
  const request = studentText(format, row.question, row.solution, row.explanation);
  const prompt = await text.encodePrompt({ ...request, assistant: [] });
  const whole = await text.encodePrompt({ ...request, endOfTurn: true });
  return sequence(whole, { start: Buffer.byteLength(prompt.text), end: Buffer.byteLength(whole.text) });
}

/** Question and solution → explanation, with the loss on explanation, closing tag and end of turn ("Warm-up before RL"). */
export async function teacherRow(
  text: PromptEncoder,
  format: TeacherFormat,
  row: ExampleRow,
): Promise<TrainingSequence> {
  const request = teacherText(format, row.question, row.solution, row.explanation);
  const whole = await text.encodePrompt({ ...request, endOfTurn: true });
  const { start } = whole.fields[THOUGHT] as ByteRange;
  return sequence(whole, { start, end: Buffer.byteLength(whole.text) });
}

function sequence({ ids, ends }: Encoded, learnt: ByteRange): TrainingSequence {
  const { from, to } = tokensInside(ends, learnt);
  return { ids, weights: new Float32Array(ids.length).fill(1, from, to) };
}

/** Refused, not cut: a trace without its end teaches never to end. */
export function checkLength({ ids }: TrainingSequence, contextLength: number, row: number, param = "dataset"): void {
  if (ids.length <= contextLength) return;
  throw fail(
    "context_length_exceeded",
    `${param}: row ${row + 1} takes ${ids.length} tokens and the model's context is ${contextLength}; leave it out or register the model with a longer context_length`,
    { param },
  );
}
