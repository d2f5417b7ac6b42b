/**
 * Documents of the corpus as training rows. The server's own prompt code renders them, so that a model is trained on
 * exactly what it is asked later.
 */

import type { TrainingSequence } from "../../src/engine/engine.ts";
import { studentFormat, teacherFormat } from "../../src/rlt/formats.ts";
import { studentText, teacherPrompt } from "../../src/rlt/prompts.ts";
import * as rows from "../../src/train/rows.ts";
import { STUDENT_FORMAT, TEACHER_FORMAT } from "./formats.ts";

const TEACHER = teacherFormat(TEACHER_FORMAT);
const STUDENT = studentFormat(STUDENT_FORMAT);

export const studentRow = (text: rows.PromptEncoder, document: rows.ExampleRow): Promise<TrainingSequence> =>
  rows.studentRow(text, STUDENT, document);

export const teacherRow = (text: rows.PromptEncoder, document: rows.ExampleRow): Promise<TrainingSequence> =>
  rows.teacherRow(text, TEACHER, document);

/** What a teacher continues: ids up to the place where its explanation begins. */
export async function teacherPromptIds(
  text: rows.PromptEncoder,
  question: string,
  solution: string,
): Promise<Int32Array> {
  return (await text.encodePrompt(teacherPrompt(TEACHER, question, solution))).ids;
}

/** What a student continues: the question, and the beginning of its turn. */
export async function studentPromptIds(text: rows.PromptEncoder, question: string): Promise<Int32Array> {
  const { assistant: _, ...prompt } = studentText(STUDENT, question, "", "");
  return (await text.encodePrompt(prompt)).ids;
}
