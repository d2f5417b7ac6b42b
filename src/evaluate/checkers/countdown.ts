import { evaluate } from "../math/evaluate.ts";
import { type Expression, MAX_EXPRESSION_CHARACTERS, parseExpression } from "../math/parse.ts";
import { decimal, equal, type Rational } from "../math/rational.ts";
import { lastBoxed } from "./boxed.ts";
import { type Checker, type CheckInput, endOf, shorten } from "./checker.ts";

/**
 * Countdown: an expression of + − × ÷ that reaches a target with given numbers, each used once at most (`use_all`: once exactly).
 * Numbers and target stand in the row's metadata (`numbers` or `nums`, `target`); what is missing there is read from the solution:
 * its numbers, its value.
 */
export function countdown({ use_all: useAll }: { use_all: boolean }): Checker {
  return {
    check(input) {
      const found = expressionOf(input.answer);
      const task = taskOf(input);
      if (!found) return { correct: false, extracted: null };
      const correct = task !== null && reaches(found.expression, task, useAll);
      return { correct, extracted: shorten(found.text) };
    },
    fault: (row) =>
      taskOf(row) === null ? 'has no numbers and target: give metadata {"numbers": [3, 5], "target": 8}' : null,
  };
}

interface Task {
  numbers: Rational[];
  target: Rational;
}

/** Six in the game; more are asked nowhere. */
const MAX_NUMBERS = 32;

function taskOf({ metadata = {}, solution }: Omit<CheckInput, "answer">): Task | null {
  const solved = expressionOf(solution)?.expression;
  const numbers = numbersOf(metadata.numbers ?? metadata.nums) ?? (solved ? leavesOf(solved) : null);
  const target = numberOf(metadata.target) ?? numberOf(solution) ?? (solved ? exactValue(solved) : null);
  if (!numbers || numbers.length === 0 || numbers.length > MAX_NUMBERS || !target) return null;
  return { numbers, target };
}

/** Of an array of numbers, or of a text as CSV has it: "[3, 5]". */
function numbersOf(value: unknown): Rational[] | null {
  const items = typeof value === "string" ? (value.match(/\d+(?:\.\d+)?/g) ?? []) : value;
  if (!Array.isArray(items) || items.length === 0 || items.length > MAX_NUMBERS) return null;
  const numbers = items.map(numberOf);
  return numbers.every((number) => number !== null) ? numbers : null;
}

function numberOf(value: unknown): Rational | null {
  const text = typeof value === "number" ? String(value) : typeof value === "string" ? value.trim() : "";
  return /^\d{1,30}(?:\.\d{1,30})?$/.test(text) ? decimal(text) : null;
}

function reaches(expression: Expression, { numbers, target }: Task, useAll: boolean): boolean {
  const used = leavesOf(expression);
  if (!used) return false;
  const left = [...numbers];
  for (const number of used) {
    const at = left.findIndex((one) => equal(one, number));
    if (at < 0) return false;
    left.splice(at, 1);
  }
  if (useAll && left.length > 0) return false;
  const value = exactValue(expression);
  return value !== null && equal(value, target);
}

/** The numbers of an expression of the four operations; null where it has anything else. */
function leavesOf(expression: Expression): Rational[] | null {
  switch (expression.op) {
    case "number":
      return expression.value && [expression.value];
    case "negate":
      return leavesOf(expression.of);
    case "+":
    case "*":
    case "/": {
      const [left, right] = [leavesOf(expression.left), leavesOf(expression.right)];
      return left && right && [...left, ...right];
    }
    default:
      return null;
  }
}

const exactValue = (expression: Expression): Rational | null => evaluate(expression, () => Number.NaN).exact;

/** In `\boxed{…}`, in `<answer>…</answer>`, or in the last line that has one; of an equation the side that computes. */
function expressionOf(text: string): { text: string; expression: Expression } | null {
  const end = endOf(text);
  const tagged = lastTagged(end);
  const places = [lastBoxed(end), tagged].filter((place) => place !== null);
  if (places.length > 0) return readLine(places[0]!);
  for (const line of lastLines(end)) {
    const found = readLine(line);
    if (found) return found;
  }
  return null;
}

function lastTagged(text: string): string | null {
  const from = text.lastIndexOf("<answer>");
  if (from < 0) return null;
  const to = text.indexOf("</answer>", from);
  return text.slice(from + "<answer>".length, to < 0 ? undefined : to);
}

/** An answer's work stands above its last lines. */
const MAX_LINES = 20;

function* lastLines(text: string): Generator<string> {
  let to = text.length;
  for (let n = 0; n < MAX_LINES && to >= 0; ) {
    const from = text.lastIndexOf("\n", to - 1);
    const line = text.slice(from + 1, to).trim();
    if (line !== "") {
      n++;
      yield line;
    }
    if (from <= 0) return;
    to = from;
  }
}

function readLine(line: string): { text: string; expression: Expression } | null {
  if (line.length > 2 * MAX_EXPRESSION_CHARACTERS) return null;
  for (const side of line.split("=")) {
    const text = side
      .replace(/\\[()[\]]|\\?\$|\\left|\\right|[`*]{2,}/g, " ")
      .replace(/^[^(\d-]*?:\s/, "")
      .trim();
    const expression = parseExpression(text);
    if (expression && expression.op !== "number" && leavesOf(expression)) return { text, expression };
  }
  return null;
}
