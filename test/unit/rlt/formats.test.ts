import { describe, expect, test } from "vitest";
import { formatProblem, studentFormat, teacherFormat } from "../../../src/rlt/formats.ts";
import { pad, studentText, teacherPrompt, teacherText } from "../../../src/rlt/prompts.ts";

const joined = (parts: readonly { text: string }[] | undefined): string => (parts ?? []).map((p) => p.text).join("");

describe("stratos", () => {
  test("a teacher's turn begins with the padded solution", () => {
    const prompt = teacherPrompt(teacherFormat("stratos"), "2+3?", "5");
    expect(prompt.messages.map((m) => m.role)).toEqual(["system", "user"]);
    expect(joined(prompt.assistant)).toBe(
      "<|begin_of_solution|>\n\n5\n\n<|end_of_solution|>\n\n<|begin_of_explanation|>\n\n",
    );
    expect(joined(teacherText(teacherFormat("stratos"), "2+3?", "5", "Add.").assistant)).toMatch(
      /explanation\|>\n\nAdd\.<\|end_of_explanation\|>$/,
    );
  });
  test("an empty thought has nothing at all between the tags", () => {
    const format = studentFormat("stratos");
    expect(joined(studentText(format, "q", "\n\n5", "").assistant)).toBe(
      "<|begin_of_thought|><|end_of_thought|>\n\n<|begin_of_solution|>\n\n5\n\n<|end_of_solution|>",
    );
    expect(joined(studentText(format, "q", "5", " t ").assistant)).toBe(
      "<|begin_of_thought|>\n\n t <|end_of_thought|>\n\n<|begin_of_solution|>\n\n5\n\n<|end_of_solution|>",
    );
  });
});

test("r1 has no system turn and no padding", () => {
  const student = studentText(studentFormat("r1"), "q", "5", "t");
  expect(student.messages).toEqual([{ role: "user", content: "q" }]);
  expect(joined(student.assistant)).toBe("<think>\nt\n</think>\n\n5");
  expect(joined(teacherPrompt(teacherFormat("r1"), "q", "5").assistant)).toBe(
    "<solution>\n5\n</solution>\n\n<explanation>\n",
  );
});

test("placeholders inside a question stay text", () => {
  const prompt = teacherPrompt(teacherFormat("r1"), "What is {solution}?", "{question}");
  expect(prompt.messages.at(-1)?.content).toContain("What is {solution}?");
  expect(joined(prompt.assistant)).toContain("<solution>\n{question}\n");
});

test("padding is added only where it is missing", () => {
  expect(pad("5", "\n\n")).toBe("\n\n5\n\n");
  expect(pad("\n\n5", "\n\n")).toBe("\n\n5\n\n");
  expect(pad("5\n", "\n\n")).toBe("\n\n5\n\n\n");
  expect(pad("5", "")).toBe("5");
});

describe("custom formats", () => {
  const own = { system: "S", prefix: "T: ", close: "<end>", between: "\nA: ", suffix: "." };
  test("parts stand in their default order, or where a placeholder is written", () => {
    expect(joined(studentText(studentFormat(own), "q", "5", "t").assistant)).toBe("T: t<end>\nA: 5.");
    const placed = { prefix: "[{explanation}]", close: "<end>", between: "({solution})" };
    expect(joined(studentText(studentFormat(placed), "q", "5", "t").assistant)).toBe("[t]<end>(5)");
    expect(joined(teacherPrompt(teacherFormat(own), "q", "5").assistant)).toBe("T: 5\nA: ");
  });
  test("what cannot work is named", () => {
    expect(formatProblem(own, "student")).toBeNull();
    expect(formatProblem({ ...own, close: " " }, "student")?.field).toBe("close");
    expect(formatProblem({ ...own, user: "no question" }, "teacher")?.field).toBe("user");
    expect(formatProblem({ ...own, user: "{question} {solution}" }, "student")?.problem).toContain("must not see");
    expect(formatProblem({ ...own, prefix: "{solution}", between: "{explanation}" }, "student")).not.toBeNull();
    expect(formatProblem({ ...own, prefix: "{explanation}{solution}" }, "teacher")?.field).toBe("prefix");
  });
});
