/**
 * Documents of the corpus as training rows. The server's own prompt code renders them, so that a model is trained on
 * exactly what it is asked later.
 */
import { studentFormat, teacherFormat } from "../../src/rlt/formats.ts";
import { studentText, THOUGHT, teacherPrompt, teacherText } from "../../src/rlt/prompts.ts";
import { tokensInside } from "../../src/rlt/spans.ts";
import type { ByteRange, Encoded, PromptRequest } from "../../src/text/text.ts";
import { STUDENT_FORMAT, TEACHER_FORMAT } from "./formats.ts";

export interface TrainingRow {
  /** (T) */
  ids: Int32Array;
  /** (T) weights[t] is that of the loss of ids[t], predicted from all before it: 1 or 0, never 1 at t = 0. */
  weights: Float32Array;
}

export interface Document {
  question: string;
  solution: string;
  /** Empty: the student learns to answer without thinking. */
  explanation: string;
}

/** A `TextModel`, or a `LoadedModel` where the tokenizer lives in the caller's own thread (fast enough for a corpus). */
export interface PromptEncoder {
  encodePrompt(request: PromptRequest): Encoded | Promise<Encoded>;
}

const TEACHER = teacherFormat(TEACHER_FORMAT);
const STUDENT = studentFormat(STUDENT_FORMAT);

/** Question → explanation → solution, with the loss on the student's whole turn. */
export async function studentRow(text: PromptEncoder, document: Document): Promise<TrainingRow> {
  const { question, solution, explanation } = document;
  const request = studentText(STUDENT, question, solution, explanation);
  const prompt = await text.encodePrompt({ ...request, assistant: [] });
  const whole = await text.encodePrompt({ ...request, endOfTurn: true });
  return row(whole, { start: Buffer.byteLength(prompt.text), end: Buffer.byteLength(whole.text) });
}

/** Question and solution → explanation, with the loss on the explanation, its closing tag and the end of the turn. */
export async function teacherRow(text: PromptEncoder, document: Document): Promise<TrainingRow> {
  const { question, solution, explanation } = document;
  const request = teacherText(TEACHER, question, solution, explanation);
  const whole = await text.encodePrompt({ ...request, endOfTurn: true });
  const { start } = whole.fields[THOUGHT] as ByteRange;
  return row(whole, { start, end: Buffer.byteLength(whole.text) });
}

/** What a teacher continues: ids up to the place where its explanation begins. */
export async function teacherPromptIds(text: PromptEncoder, question: string, solution: string): Promise<Int32Array> {
  return (await text.encodePrompt(teacherPrompt(TEACHER, question, solution))).ids;
}

/** What a student continues: the question, and the beginning of its turn. */
export async function studentPromptIds(text: PromptEncoder, question: string): Promise<Int32Array> {
  const { assistant: _, ...prompt } = studentText(STUDENT, question, "", "");
  return (await text.encodePrompt(prompt)).ids;
}

function row({ ids, ends }: Encoded, learnt: ByteRange): TrainingRow {
  const { from, to } = tokensInside(ends, learnt);
  return { ids, weights: new Float32Array(ids.length).fill(1, from, to) };
}
