/** Tables of what counts as right, by checker; hostile answers at the end. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ANSWER_TYPES, type AnswerSpec, checkerOf } from "../../../src/evaluate/answers.ts";
import { lastBoxed } from "../../../src/evaluate/checkers/boxed.ts";

const specOf = (type: AnswerSpec["type"]): AnswerSpec =>
  type === "countdown"
    ? { type, use_all: false }
    : type === "math" || type === "last_number"
      ? { type, tolerance: 0 }
      : { type };
const verdict = (type: AnswerSpec["type"], answer: string, solution: string, metadata?: Record<string, unknown>) =>
  checkerOf(specOf(type)).check({ answer, solution, metadata });

/** answer, solution, whether it is right. */
type Case = [string, string, boolean];

describe("exact", () => {
  test.each<Case>([
    ["5", "5", true],
    [" 5\n", "\n\n5\n\n", true],
    ["a  b\nc", "a b c", true],
    ["5.0", "5", false],
    ["", "5", false],
    ["A b", "a b", false],
  ])("%j for %j", (answer, solution, correct) => {
    expect(verdict("exact", answer, solution).correct).toBe(correct);
  });
});

describe("boxed", () => {
  test.each<Case>([
    ["so \\boxed{5}", "5", true],
    ["so \\boxed{5}", "thus $\\boxed{5}$.", true],
    ["\\boxed{4} no, \\boxed{ 5 }", "5", true],
    ["\\boxed{\\frac{1}{2}}", "\\frac{1}{2}", true],
    ["\\boxed{\\{1, 2\\}}", "\\{1, 2\\}", true],
    ["\\fbox{5}", "5", true],
    ["\\boxed 5", "5", true],
    ["\\boxed{$5$}", "5", true],
    ["\\boxed{5} \\boxed{6", "5", true],
    ["5", "5", false],
    ["\\boxed{}", "5", false],
    ["\\boxedfoo{5}", "5", false],
  ])("%j for %j", (answer, solution, correct) => {
    expect(verdict("boxed", answer, solution).correct).toBe(correct);
  });
  test("whatever nests inside is read whole", () => {
    const nested = fc.letrec<{ tree: string }>((tie) => ({
      tree: fc.oneof(
        { maxDepth: 6 },
        fc.stringMatching(/^[a-z0-9]{0,4}$/),
        fc.tuple(tie("tree"), tie("tree")).map(([a, b]) => `${a}{${b}}`),
      ),
    })).tree;
    fc.assert(
      fc.property(nested, nested, (inner, before) => {
        expect(lastBoxed(`${before} \\boxed{${inner}} .`)).toBe(inner.trim());
      }),
    );
  });
});

describe("last_number", () => {
  test.each<Case>([
    ["it is 5", "5", true],
    ["first 7 then 5.", "#### 5", true],
    ["1,234", "1234", true],
    ["$1,234,567.50", "1234567.5", true],
    ["-5", "-5", true],
    ["−5", "-5", true],
    ["x = -5", "-5", true],
    ["8-3", "3", true],
    ["8 - 3", "3", true],
    ["0.5", "1/2", true],
    [".5", "0.5", true],
    ["3/4", "0.75", true],
    ["2 3/4", "2.75", true],
    ["-2 1/2", "-2.5", true],
    ["50%", "50", true],
    ["50%", "0.5", true],
    ["50 %", "50%", true],
    ["0.5%", "50%", false],
    ["5.00", "5", true],
    ["0.333", "1/3", false],
    ["5", "-5", false],
    ["none", "5", false],
    ["12 apples and 7 pears", "12", false],
    ["1/0", "5", false],
  ])("%j for %j", (answer, solution, correct) => {
    expect(verdict("last_number", answer, solution).correct).toBe(correct);
  });
  test("a tolerance is relative", () => {
    const near = checkerOf({ type: "last_number", tolerance: 0.01 });
    expect(near.check({ answer: "about 3.14", solution: "3.1416" }).correct).toBe(true);
    expect(near.check({ answer: "about 3.2", solution: "3.1416" }).correct).toBe(false);
  });
  test("any number is found again behind any words, with or without thousands", () => {
    fc.assert(
      fc.property(fc.integer({ min: -1e12, max: 1e12 }), fc.boolean(), (value, grouped) => {
        const written = grouped ? value.toLocaleString("en-US") : String(value);
        expect(verdict("last_number", `12 then 7: ${written}.`, String(value)).correct).toBe(true);
        expect(verdict("last_number", written, String(value + 1)).correct).toBe(false);
      }),
    );
  });
});

describe("choice", () => {
  test.each<Case>([
    ["B", "B", true],
    ["b", "B", true],
    ["(B)", "B", true],
    ["B.", "(B)", true],
    ["**B**", "B", true],
    ["\\boxed{B}", "B", true],
    ["\\boxed{\\text{(B)}}", "B", true],
    ["$\\textbf{(B)}$", "B", true],
    ["The answer is B because it fits.", "B", true],
    ["The answer is A because it fits.", "A", true],
    ["The correct answer is (C).", "C", true],
    ["Answer: D", "D", true],
    ["answer: option D", "D", true],
    ["The answer is: **E**", "E", true],
    ["A and B are wrong. The answer is C.", "C", true],
    ["I would say (A), but no: (D)", "D", true],
    ["B) because of this", "B", true],
    ["Think.\nB. A train", "B", true],
    ["the final choice is d", "D", true],
    ["Both B and D look good, D", "D", true],
    ["A train goes", "A", false],
    ["the answer is a number", "A", false],
    ["", "A", false],
    ["F", "A", false],
    ["The answer is C", "B", false],
  ])("%j for %j", (answer, solution, correct) => {
    expect(verdict("choice", answer, solution).correct).toBe(correct);
  });
});

describe("math", () => {
  test.each<Case>([
    ["\\boxed{\\frac{1}{2}}", "0.5", true],
    ["\\boxed{\\dfrac12}", "\\frac{2}{4}", true],
    ["The answer is $\\frac{3}{4}$.", "\\boxed{0.75}", true],
    ["so x = 7", "7", true],
    ["#### 42", "42", true],
    ["We add.\n3 + 4 = 7", "7", true],
    ["\\sqrt{8}", "2\\sqrt{2}", true],
    ["\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt{2}}", true],
    ["The total is 12 and the rest 30", "30", true],
    ["\\boxed{x^2+2x+1}", "(x+1)^2", true],
    ["\\boxed{5}", "6", false],
    ["", "6", false],
    ["I do not know", "6", false],
  ])("%j for %j", (answer, solution, correct) => {
    expect(verdict("math", answer, solution).correct).toBe(correct);
  });
});

describe("countdown", () => {
  const task = { numbers: [3, 5, 7, 7], target: 22 };
  const check = (answer: string, use_all = false, metadata: Record<string, unknown> = task) =>
    checkerOf({ type: "countdown", use_all }).check({ answer, solution: "22", metadata }).correct;

  test.each<[string, boolean]>([
    ["3 * 5 + 7", true],
    ["(3 * 5) + 7 = 22", true],
    ["22 = 3*5+7", true],
    ["\\boxed{3 \\times 5 + 7}", true],
    ["<answer>3*5+7</answer>", true],
    ["First I try 3+5.\nThe solution is: 3 × 5 + 7", true],
    ["7 - (3 - 5) + 7 + 5 + 1", false],
    ["7 + 7 + 3 + 5", true],
    ["7 + 7 + 7 + 1", false],
    ["22", false],
    ["3 * 5 + 8", false],
    ["35 - 7", false],
    ["3 ^ 5", false],
    ["\\frac{7}{7} \\cdot 5", false],
    ["nothing", false],
    ["", false],
  ])("%j: %j", (answer, correct) => {
    expect(check(answer)).toBe(correct);
  });
  test("divisions are exact", () => {
    expect(check("(1 - 2/3) * 9", false, { numbers: [1, 2, 3, 9], target: 3 })).toBe(true);
    expect(check("8 / (3 - 8/3)", true, { nums: "[3, 3, 8, 8]", target: "24" })).toBe(true);
    expect(check("5 / (3 - 3)", false, { numbers: [5, 3, 3], target: 0 })).toBe(false);
  });
  test("use_all asks for every number", () => {
    expect(check("3 * 5 + 7", true)).toBe(false);
    expect(check("7 + 7 + 3 + 5", true)).toBe(true);
  });
  test("numbers and target may stand in the solution", () => {
    expect(verdict("countdown", "7 + 5 * 3", "3 * 5 + 7").correct).toBe(true);
    expect(verdict("countdown", "7 + 5", "3 * 5 + 7").correct).toBe(false);
    expect(verdict("countdown", "3*5+7", "22", { numbers: [3, 5, 7] }).correct).toBe(true);
  });
  test("what is built from the numbers is right, and with one number replaced it is not", () => {
    const operation = fc.constantFrom("+", "-", "*");
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 99 }), { minLength: 2, maxLength: 6 }),
        fc.array(operation, { minLength: 5, maxLength: 5 }),
        (numbers, operations) => {
          let text = String(numbers[0]);
          let value = numbers[0]!;
          for (const [i, number] of numbers.slice(1).entries()) {
            const by = operations[i]!;
            text = `(${text} ${by} ${number})`;
            value = by === "+" ? value + number : by === "-" ? value - number : value * number;
          }
          fc.pre(value >= 0);
          const metadata = { numbers, target: value };
          expect(check(text, true, metadata)).toBe(true);
          expect(check(text.replace(String(numbers[0]), "100"), true, metadata)).toBe(false);
        },
      ),
    );
  });
});

describe("rows that nobody could answer are named", () => {
  test.each<[AnswerSpec["type"], string, RegExp]>([
    ["exact", " ", /empty solution/],
    ["boxed", "\\boxed{}", /nothing in its solution/],
    ["last_number", "none", /no number/],
    ["choice", "42", /letters A to E/],
    ["math", "", /no final answer/],
    ["countdown", "nothing", /numbers and target/],
  ])("%s", (type, solution, reason) => {
    expect(checkerOf(specOf(type)).fault({ solution })).toMatch(reason);
  });
  test("and others are not", () => {
    for (const type of ANSWER_TYPES) {
      const solution = type === "choice" ? "B" : type === "countdown" ? "3 + 4" : "7";
      expect(checkerOf(specOf(type)).fault({ solution }), type).toBeNull();
    }
  });
});

/** Most would take minutes or the stack if the work were more than linear. */
const HOSTILE = [
  "{",
  "}",
  "(",
  "((((1))))",
  "\\boxed{",
  "\\boxed{1}",
  "\\frac{",
  "-",
  "- ",
  "9",
  "9,",
  "1,234",
  "1/",
  "9.",
  " ",
  "\n",
  "**B",
  "(B",
  "answer is ",
  "answer: **",
  "=",
  "\\sqrt{",
  "2^",
  "9^9^",
  "\\text{",
  "$",
  "$1",
  "%",
  "9 %",
  "a",
  "9 a",
  "cm ",
  "9 cm ",
  "<answer>",
  "\\left(",
  "!",
  "9!",
  "\\{1,",
  "[1,",
  "\\pm",
  "\\cup",
  "|",
  "é",
  "\u{1F600}",
  "\\",
  "&",
  "\\begin{pmatrix}",
  "x_",
  "log_",
];

describe("hostile answers are bounded", () => {
  test.each(ANSWER_TYPES)("%s", (type) => {
    for (const piece of HOSTILE) {
      for (const wrap of [(text: string) => text, (text: string) => `\\boxed{${text}}`]) {
        for (const length of [900, 1e6]) {
          const answer = wrap(piece.repeat(length / piece.length));
          const { correct, extracted } = verdict(type, answer, type === "choice" ? "E" : "1 + 6");
          expect(correct, `${piece} × ${length}`).toBe(false);
          expect((extracted ?? "").length).toBeLessThanOrEqual(1000);
        }
      }
    }
  });
  test("blanks behind a word that announces an answer are looked at once", () => {
    for (const blank of [" ", "\n", " \n", "\t"]) {
      expect(verdict("choice", `the answer${blank.repeat(10_000)}z`, "E").correct).toBe(false);
      expect(verdict("choice", `the answer is${blank.repeat(10_000)}E`, "E").correct).toBe(true);
    }
  });
  test("any text is answered with a verdict", () => {
    const signs = fc.constantFrom(
      ..."0123456789+-*/^(){}[]|!,.%$\\ \n=xe".split(""),
      "\\frac",
      "\\sqrt",
      "\\boxed{",
      "\\pm",
    );
    fc.assert(
      fc.property(fc.array(signs, { maxLength: 60 }), fc.string(), (parts, other) => {
        for (const type of ANSWER_TYPES) {
          for (const answer of [parts.join(""), other]) {
            expect(verdict(type, answer, parts.join("")).correct).toBeTypeOf("boolean");
            expect(() => checkerOf(specOf(type)).fault({ solution: answer })).not.toThrow();
          }
        }
      }),
      { numRuns: 300 },
    );
  });
});
