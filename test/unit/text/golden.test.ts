import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createTextService } from "../../../src/text/client.ts";
import type { TextModel, TextPart } from "../../../src/text/text.ts";
import { GOLDEN } from "./fixtures.ts";

interface GoldenTokenizer {
  strings: { text: string; ids: number[]; decoded: string }[];
  chat: { messages: { role: string; content: string }[]; text: string };
}
interface GoldenCase {
  question: string;
  solution: string;
  completion: string;
  teacher_prompt: string;
  student_chat: string[];
}
const read = (name: string): unknown => JSON.parse(readFileSync(join(GOLDEN, name), "utf8"));
const { tokenizer: golden } = read("tokenizer.json") as { tokenizer: GoldenTokenizer };
const rewards = read("rewards.json") as { pairs: { teacher: string; student: string; cases: GoldenCase[] }[] };

const service = createTextService();
let model: TextModel;
beforeAll(async () => {
  model = await service.open(join(GOLDEN, "models/qwen2"));
});
afterAll(() => service.close());

describe("the reference tokenizer's strings", () => {
  test.each(golden.strings)("$text", async ({ text, ids, decoded }) => {
    const encoded = await model.encode(text, { parseSpecial: true, addSpecial: true });
    expect([...encoded.ids]).toEqual(ids);
    expect(await model.decode(encoded.ids, { special: true })).toBe(decoded);
  });
});

test("a chat is rendered as the reference renders it, and its ids are those of the text", async () => {
  const { messages, text } = golden.chat;
  const prompt = await model.encodePrompt({ messages });
  expect(prompt.text).toBe(text);
  expect(prompt.ids).toEqual((await model.encode(text, { parseSpecial: true, addSpecial: false })).ids);
  expect(prompt.ends.at(-1)).toBe(Buffer.byteLength(text));
});

test("what the model knows about itself", () => {
  expect(model.size).toBe(480);
  expect(model.eosIds).toEqual([2]);
  expect(model.hasChatTemplate).toBe(true);
  expect(model.bytesOf(2)).toHaveLength(0);
  expect(Buffer.from(model.bytesOf(2, true)).toString()).toBe("<|im_end|>");
  for (const beyond of [480, 511, 1e9, -1, 0.5, Number.NaN]) expect(model.bytesOf(beyond)).toHaveLength(0);
});

test("an equal tokenizer elsewhere has the same hash", async () => {
  const other = await service.open(join(GOLDEN, "models/llama"));
  expect(other.tokenizerHash).toBe(model.tokenizerHash);
  expect(other.bytesOf(300).buffer).toBe(model.bytesOf(300).buffer);
});

const systemOf = (chat: string): string => /^<\|im_start\|>system\n([\s\S]*?)<\|im_end\|>/.exec(chat)?.[1] ?? "";
const thoughtOf = (completion: string): string => completion.split("<|end_of_explanation|>")[0] as string;

describe.each(rewards.pairs)("prompts of the reward cases, $teacher and $student", ({ teacher, student, cases }) => {
  const messages = (chat: string, question: string) => [
    { role: "system", content: systemOf(chat) },
    { role: "user", content: question },
  ];

  test("teacher", async () => {
    const text = await service.open(join(GOLDEN, "models", teacher));
    for (const { question, solution, teacher_prompt } of cases) {
      const assistant: TextPart[] = [
        { text: "<|begin_of_solution|>" },
        { text: solution, field: "solution" },
        { text: "<|end_of_solution|>\n\n<|begin_of_explanation|>\n\n" },
      ];
      const prompt = await text.encodePrompt({ messages: messages(teacher_prompt, question), assistant });
      expect(prompt.text).toBe(teacher_prompt);
      const whole = await text.encode(teacher_prompt, { parseSpecial: true, addSpecial: false });
      expect(prompt.ids).toEqual(whole.ids);
    }
  });

  test("student", async () => {
    const text = await service.open(join(GOLDEN, "models", student));
    for (const { question, solution, completion, student_chat } of cases) {
      const chat = student_chat[0] as string;
      const thought = thoughtOf(completion);
      const assistant: TextPart[] = [
        { text: thought === "" ? "<|begin_of_thought|>" : "<|begin_of_thought|>\n\n" },
        { text: thought, field: "thought" },
        { text: "<|end_of_thought|>\n\n<|begin_of_solution|>" },
        { text: solution, field: "solution" },
        { text: "<|end_of_solution|>" },
      ];
      const prompt = await text.encodePrompt({ messages: messages(chat, question), assistant, endOfTurn: true });
      expect(prompt.text).toBe(chat);
      const bytes = Buffer.from(prompt.text);
      for (const [name, value] of Object.entries({ thought, solution })) {
        const { start, end } = prompt.fields[name] as { start: number; end: number };
        expect(bytes.subarray(start, end).toString()).toBe(value.normalize("NFC"));
      }
    }
  });
});
