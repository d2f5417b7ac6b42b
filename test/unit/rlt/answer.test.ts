import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { answerClose, answerOf } from "../../../src/rlt/answer.ts";
import { type FormatSpec, studentFormat } from "../../../src/rlt/formats.ts";
import { studentPrompt, studentText } from "../../../src/rlt/prompts.ts";

const joined = (parts: readonly { text: string }[] | undefined): string => (parts ?? []).map((p) => p.text).join("");

const FORMATS: Record<string, FormatSpec> = {
  stratos: "stratos",
  r1: "r1",
  miniature: { prefix: "<think>", close: "</think>" },
  words: { prefix: "T: ", close: "<end>", between: "\nA: ", suffix: "." },
  brackets: { prefix: "[{explanation}]", close: "<end>", between: "({solution})" },
};

describe("the prompt", () => {
  test("is system and question; the student writes its turn itself", () => {
    const prompt = studentPrompt(studentFormat("stratos"), "2+3?");
    expect(prompt.messages.map(({ role }) => role)).toEqual(["system", "user"]);
    expect(prompt.messages.at(-1)?.content).toBe("2+3?");
    expect(prompt.assistant).toBeUndefined();
    expect(studentPrompt(studentFormat("r1"), "2+3?").messages).toEqual([{ role: "user", content: "2+3?" }]);
  });
  test("begins the turn where the format asks the question there", () => {
    const format = studentFormat({ user: "Go.", prefix: "Q: {question}\nT: ", close: "<end>" });
    expect(joined(studentPrompt(format, "2+3?").assistant)).toBe("Q: 2+3?\nT: ");
  });
});

test("sampling stops at the tag that closes the solution, if there is one", () => {
  expect(Object.values(FORMATS).map((spec) => answerClose(studentFormat(spec)))).toEqual([
    "<|end_of_solution|>",
    null,
    null,
    null,
    null,
  ]);
});

describe.each(Object.entries(FORMATS))("%s", (_, spec) => {
  const format = studentFormat(spec);
  test("what a format puts together is taken apart again", () => {
    const word = fc.stringMatching(/^[a-z0-9][a-z0-9 =+]{0,20}[a-z0-9]$/);
    fc.assert(
      fc.property(word, word, (thought, solution) => {
        const turn = joined(studentText(format, "q", solution, thought).assistant);
        expect(answerOf(format, turn)).toEqual({ text: solution, found: true });
      }),
    );
  });
  test("without any tag the whole text is the answer", () => {
    expect(answerOf(format, " it is 5 ")).toEqual({ text: "it is 5", found: false });
    expect(answerOf(format, "")).toEqual({ text: "", found: false });
  });
});

describe("what careless students write", () => {
  const stratos = studentFormat("stratos");
  test.each([
    ["no end of the thought", "hm <|begin_of_solution|>\n\n5\n\n<|end_of_solution|>", "5"],
    ["other white space", "<|end_of_thought|><|begin_of_solution|>5<|end_of_solution|>", "5"],
    ["cut off in the solution", "t<|end_of_thought|>\n\n<|begin_of_solution|>\n\nit is 5", "it is 5"],
    ["the tag twice", "<|begin_of_solution|> 4? no <|begin_of_solution|> 5 <|end_of_solution|>", "5"],
    ["more after the end", "<|begin_of_solution|>5<|end_of_solution|> <|begin_of_solution|>6", "5"],
  ])("%s", (_, completion, text) => {
    expect(answerOf(stratos, completion)).toEqual({ text, found: true });
  });
  test("r1: the last </think> counts, and a thought without an end is the whole text", () => {
    const r1 = studentFormat("r1");
    expect(answerOf(r1, "<think>\na </think> b\n</think>\n\n5")).toEqual({ text: "5", found: true });
    expect(answerOf(r1, "<think>\nstill 5")).toEqual({ text: "<think>\nstill 5", found: false });
  });
});

test("a million characters cost no more than reading them", () => {
  const format = studentFormat("stratos");
  for (const piece of ["<|end_of_thought|>", "<|end_of_thought|>\n", " \n", "<|begin_of_solution", "<|"]) {
    expect(answerOf(format, piece.repeat(1e6 / piece.length)).found).toBe(false);
  }
});
