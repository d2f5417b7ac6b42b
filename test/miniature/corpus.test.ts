import { createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { TrainingSequence } from "../../src/engine/engine.ts";
import { studentFormat, teacherFormat } from "../../src/rlt/formats.ts";
import { studentText, teacherPrompt } from "../../src/rlt/prompts.ts";
import { createTextService } from "../../src/text/client.ts";
import { type LoadedModel, loadModel } from "../../src/text/loaded-model.ts";
import { studentPromptIds, studentRow, teacherPromptIds, teacherRow } from "./corpus.ts";
import { STUDENT_FORMAT, TEACHER_FORMAT } from "./formats.ts";
import { takeTasks } from "./tasks.ts";
import { END_ID, VOCABULARY, writeTokenizer } from "./vocabulary.ts";

const corpus = takeTasks(300, { seed: 1, difficulty: [3, 7], easyShare: 0.3 });

let directory: string;
let model: LoadedModel;
beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "preceptor-miniature-"));
  await writeTokenizer(directory);
  model = await loadModel(directory, () => undefined);
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const spell = (ids: Iterable<number>): string => [...ids].map((id) => VOCABULARY[id]).join("");
const learnt = ({ ids, weights }: TrainingSequence): string => spell(ids.filter((_, t) => weights[t] === 1));
const given = ({ ids, weights }: TrainingSequence): string => spell(ids.filter((_, t) => weights[t] === 0));

describe("rows", () => {
  test("of the student teach its whole turn", async () => {
    for (const task of corpus) {
      const row = await studentRow(model, task);
      expect(learnt(row)).toBe(`<think>${task.explanation}</think>${task.solution}<end>`);
      expect(given(row)).toBe(`<user>${task.question}<end><assistant>`);
    }
  });

  test("of the teacher teach the explanation, its closing tag and the end of the turn", async () => {
    for (const task of corpus) {
      const row = await teacherRow(model, task);
      expect(learnt(row)).toBe(`${task.explanation}</explain><end>`);
      expect(given(row)).toBe(`<user>${task.question}<end><assistant><solution>${task.solution}<explain>`);
    }
  });

  test("without an explanation teach the student to answer at once", async () => {
    const row = await studentRow(model, { question: "5 + 8", solution: "3", explanation: "" });
    expect(learnt(row)).toBe("<think></think>3<end>");
  });

  test("begin with what is given, fit the context, and weigh 0 or 1", async () => {
    for (const task of takeTasks(200, { seed: 2, difficulty: [7, 7], style: "verbose" })) {
      for (const { ids, weights } of [await studentRow(model, task), await teacherRow(model, task)]) {
        const from = weights.indexOf(1);
        expect(weights).toEqual(new Float32Array(ids.length).fill(1, from));
        expect(from).toBeGreaterThan(0);
        expect(ids.length).toBeLessThan(128);
      }
    }
  });

  test("are the same for ever", async () => {
    const hash = createHash("sha256");
    for (const task of corpus.slice(0, 100)) {
      for (const { ids, weights } of [await studentRow(model, task), await teacherRow(model, task)]) {
        hash.update(JSON.stringify([[...ids], [...weights]]));
      }
    }
    expect(hash.digest("hex")).toBe("c1d09a5c5b74429312b417bfca3761f96e9b4fa3ec9c76e39f3eb94b05a35570");
  });
});

test("training sees what the server renders", async () => {
  const service = createTextService();
  try {
    const text = await service.open(directory);
    for (const task of corpus.slice(0, 30)) {
      const { question, solution, explanation } = task;
      const teacher = await text.encodePrompt(teacherPrompt(teacherFormat(TEACHER_FORMAT), question, solution));
      const student = await text.encodePrompt(
        studentText(studentFormat(STUDENT_FORMAT), question, solution, explanation),
      );
      const chat = await text.encodePrompt({ messages: [{ role: "user", content: question }] });
      const rowOfTeacher = await teacherRow(text, task);
      const rowOfStudent = await studentRow(text, task);
      expect([...rowOfTeacher.ids.slice(0, rowOfTeacher.weights.indexOf(1))]).toEqual([...teacher.ids]);
      expect([...rowOfStudent.ids]).toEqual([...student.ids, END_ID]);
      expect([...rowOfStudent.ids.slice(0, rowOfStudent.weights.indexOf(1))]).toEqual([...chat.ids]);
      expect(await teacherPromptIds(model, question, solution)).toEqual(teacher.ids);
      expect(await studentPromptIds(model, question)).toEqual(chat.ids);
    }
  } finally {
    await service.close();
  }
});
