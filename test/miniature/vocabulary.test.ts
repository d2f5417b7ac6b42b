import { createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { Tokenizer as ReferenceTokenizer } from "@huggingface/tokenizers";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { formatProblem, studentFormat, teacherFormat } from "../../src/rlt/formats.ts";
import { studentText, teacherPrompt } from "../../src/rlt/prompts.ts";
import { type LoadedModel, loadModel } from "../../src/text/loaded-model.ts";
import { bytesOfId, decodeIds } from "../../src/text/token-bytes.ts";
import { between, randomFrom } from "../bench/random.ts";
import { STUDENT_FORMAT, TEACHER_FORMAT } from "./formats.ts";
import { type Task, takeTasks } from "./tasks.ts";
import { END_ID, PAD_ID, tokenizerConfig, tokenizerFile, VOCABULARY, writeTokenizer } from "./vocabulary.ts";

const CONTROL_TOKENS = 5;
const UNKNOWN_ID = VOCABULARY.indexOf("<unk>");
const PLAIN = { parseSpecial: false, addSpecial: false };

let directory: string;
let model: LoadedModel;
beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "preceptor-miniature-"));
  await writeTokenizer(directory);
  model = await loadModel(directory, () => undefined);
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const decode = (ids: Iterable<number>, special = false): string =>
  decodeIds(model.tokenizer.bytes, ids, { special, stripsSpace: model.tokenizer.stripsSpace });
const idsOf = (text: string): number[] => [...model.encode(text, PLAIN).ids];

const corpus = takeTasks(2000, { seed: 1, difficulty: [3, 7], easyShare: 0.3 });
const other = takeTasks(200, { seed: 1, operators: "other" });

describe("the vocabulary", () => {
  test("is small and keeps its ids: trained weights depend on them", () => {
    expect(VOCABULARY.length).toBe(48);
    expect(new Set(VOCABULARY).size).toBe(VOCABULARY.length);
    const hash = createHash("sha256").update(JSON.stringify(VOCABULARY)).digest("hex");
    expect(hash).toBe("90091598b4003338d586d6685b24bde589d9f7d7af1a79cfbe9ac7a414f1d7c0");
    expect([VOCABULARY[PAD_ID], VOCABULARY[END_ID]]).toEqual(["<pad>", "<end>"]);
    expect(model.eosIds).toEqual([END_ID]);
  });

  test("has one token for every digit, sign and word of every text, which decode to it again", () => {
    for (const text of [...corpus, ...other].flatMap(({ question, explanation, solution }) => [
      question,
      explanation,
      solution,
    ])) {
      const ids = idsOf(text);
      expect(ids.length).toBe(text.split(/ +/).length);
      expect(ids).not.toContain(UNKNOWN_ID);
      expect(decode(ids)).toBe(text);
    }
  });

  test("is used whole", () => {
    const used = new Set([...corpus, ...other].flatMap((task) => rendered(task)));
    expect(VOCABULARY.filter((_, id) => !used.has(id))).toEqual(["<pad>", "<unk>"]);
  });

  test("lets any sequence of ids be found again in its text", () => {
    const next = randomFrom(3);
    for (let i = 0; i < 500; i++) {
      const ids = Array.from({ length: between(next, 1, 30) }, () =>
        between(next, CONTROL_TOKENS, VOCABULARY.length - 1),
      );
      const { ids: again, ends } = model.encode(decode(ids), PLAIN);
      expect([...again]).toEqual(ids);
      expect([...ends]).toEqual(ids.map((_, k) => decode(ids.slice(0, k + 1)).length));
    }
  });

  test("turns what it does not know, and control tokens in texts, into <unk>", () => {
    expect(idsOf("hello ")).toEqual([UNKNOWN_ID]);
    expect(idsOf("5<end>")).toEqual([VOCABULARY.indexOf("5"), UNKNOWN_ID]);
    expect(idsOf("<think>5")).toEqual([VOCABULARY.indexOf("<think>"), VOCABULARY.indexOf("5")]);
    expect(bytesOfId(model.tokenizer.bytes, END_ID).length).toBe(0);
  });

  test("means the same to Hugging Face's library", () => {
    const reference = new ReferenceTokenizer(tokenizerFile(), tokenizerConfig());
    for (const { question, explanation } of corpus.slice(0, 200)) {
      const text = `<user>${question}<end><assistant><think>${explanation}</think>`;
      const ours = model.encode(text, { parseSpecial: true, addSpecial: true });
      expect([...ours.ids]).toEqual(reference.encode(text).ids);
    }
  });
});

const TEACHER = teacherFormat(TEACHER_FORMAT);
const STUDENT = studentFormat(STUDENT_FORMAT);

/** Ids of all that teacher and student see of a task. */
function rendered({ question, solution, explanation }: Task): number[] {
  return [
    ...model.encodePrompt(teacherPrompt(TEACHER, question, solution)).ids,
    ...model.encodePrompt(studentText(STUDENT, question, solution, explanation)).ids,
    ...idsOf(TEACHER.close),
  ];
}

describe("prompts", () => {
  test("are what the formats say", () => {
    expect(formatProblem(TEACHER_FORMAT, "teacher")).toBeNull();
    expect(formatProblem(STUDENT_FORMAT, "student")).toBeNull();
    expect(model.encodePrompt(teacherPrompt(TEACHER, "5 + 8", "3")).text).toBe(
      "<user>5 + 8<end><assistant><solution>3<explain>",
    );
    const request = studentText(STUDENT, "5 + 8", "3", "compute 5 + 8 = 3");
    expect(model.encodePrompt({ ...request, endOfTurn: true }).text).toBe(
      "<user>5 + 8<end><assistant><think>compute 5 + 8 = 3</think>3<end>",
    );
  });

  test("put what a system turn says at the head of the user's", () => {
    const messages = ["system", "user"].map((role, i) => ({ role, content: String(i) }));
    expect(model.encodePrompt({ messages }).text).toBe("<user>0\n\n1<end><assistant>");
  });

  test("consist of known tokens and are short even for the longest questions", () => {
    const longest = takeTasks(500, { seed: 2, difficulty: [7, 7] });
    for (const task of longest) {
      const { question, solution, explanation } = task;
      const teacher = model.encodePrompt(teacherPrompt(TEACHER, question, solution)).ids;
      const student = model.encodePrompt(studentText(STUDENT, question, solution, explanation)).ids;
      expect(teacher.length).toBe(21);
      expect(student.length).toBeLessThan(100);
      expect(rendered(task)).not.toContain(UNKNOWN_ID);
    }
  });
});
