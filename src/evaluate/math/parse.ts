/**
 * Arithmetic as people and LaTeX write it → a tree. A recursive descent over the characters, nothing is ever executed.
 * Bounded in length and depth: what goes beyond is no expression (null).
 */
import { decimal, type Rational } from "./rational.ts";

export type Expression =
  | { op: "number"; text: string; value: Rational | null }
  /** A variable or a constant: `x`, `\pi`. */
  | { op: "name"; name: string }
  | { op: "+" | "*" | "/" | "^"; left: Expression; right: Expression }
  | { op: "negate"; of: Expression }
  | { op: "root"; degree: Expression | null; of: Expression }
  | { op: "call"; name: FunctionName; base: Expression | null; of: Expression };

export const FUNCTIONS = [
  "sin",
  "cos",
  "tan",
  "cot",
  "sec",
  "csc",
  "arcsin",
  "arccos",
  "arctan",
  "ln",
  "log",
  "exp",
  "abs",
  "factorial",
] as const;
export type FunctionName = (typeof FUNCTIONS)[number];

/** A final answer is shorter; also bounds the arithmetic that follows. */
export const MAX_EXPRESSION_CHARACTERS = 1_000;
/** A stack that no text can exhaust; nobody nests deeper by hand. */
const MAX_DEPTH = 64;

const TIMES = ["\\cdot", "\\times", "*", "×", "·", "⋅"];
const OVER = ["\\div", "/", "÷"];
const MINUS = ["-", "−", "–"];
const CONSTANTS: Readonly<Record<string, string>> = {
  "\\pi": "pi",
  π: "pi",
  pi: "pi",
  "\\infty": "infinity",
  "∞": "infinity",
  infinity: "infinity",
};
/** More letters in a row are a word, not a product. */
const MAX_PRODUCT_LETTERS = 3;

class NoExpression extends Error {}

export function parseExpression(text: string): Expression | null {
  if (text.length > MAX_EXPRESSION_CHARACTERS) return null;
  try {
    const parser = createParser(text);
    const whole = parser.sum();
    return parser.ended() ? whole : null;
  } catch (error) {
    if (error instanceof NoExpression) return null;
    throw error;
  }
}

function createParser(text: string) {
  let at = 0;
  let depth = 0;

  const space = (): void => {
    while (at < text.length && /\s/.test(text[at]!)) at++;
  };
  /** A command ends where its letters do: `\cdot` is not the beginning of `\cdots`. */
  const isAt = (word: string): boolean =>
    text.startsWith(word, at) && !(/[a-zA-Z]$/.test(word) && /[a-zA-Z]/.test(text[at + word.length] ?? ""));
  const take = (...words: readonly string[]): string | null => {
    space();
    const found = words.find(isAt);
    if (found === undefined) return null;
    at += found.length;
    return found;
  };
  const demand = (word: string): void => {
    if (take(word) === null) throw new NoExpression();
  };
  const matching = (pattern: RegExp): string | null => {
    space();
    pattern.lastIndex = at;
    const found = pattern.exec(text)?.[0];
    if (found === undefined) return null;
    at += found.length;
    return found;
  };
  const nested = <T>(read: () => T): T => {
    if (++depth > MAX_DEPTH) throw new NoExpression();
    const value = read();
    depth--;
    return value;
  };

  function sum(): Expression {
    let left = product();
    for (;;) {
      if (take("+") !== null) left = { op: "+", left, right: product() };
      else if (take(...MINUS) !== null) left = { op: "+", left, right: { op: "negate", of: product() } };
      else return left;
    }
  }

  function product(): Expression {
    let left = signed();
    for (;;) {
      if (take(...TIMES) !== null) left = { op: "*", left, right: signed() };
      else if (take(...OVER) !== null) left = { op: "/", left, right: signed() };
      else {
        const beside = juxtaposed(left);
        if (!beside) return left;
        left = beside;
      }
    }
  }

  /** `2\pi`, `(a)(b)`: a product; `1\frac{1}{2}`, `1 1/2`: a mixed number. */
  function juxtaposed(left: Expression): Expression | null {
    space();
    const isWhole = left.op === "number" && /^\d+$/.test(left.text);
    if (isWhole && /\\frac\s*(?:\{\s*\d+\s*\}|\d)\s*(?:\{\s*\d+\s*\}|\d)/y.test(text.slice(at, at + 40))) {
      return { op: "+", left, right: power() };
    }
    if (/[\d.]/.test(text[at] ?? "")) {
      const fraction = isWhole ? matching(/\d+\s*\/\s*\d+(?![\d.])/y) : null;
      if (fraction === null) throw new NoExpression();
      const [over, under] = fraction.split("/").map((digits) => number(digits.trim()));
      return { op: "+", left, right: { op: "/", left: over!, right: under! } };
    }
    if (!/[a-zA-Zπ∞√({[\\]/.test(text[at] ?? "") || /\\(?:right|end|\\|})/y.test(text.slice(at, at + 8))) return null;
    return { op: "*", left, right: power() };
  }

  const signed = (): Expression =>
    nested(() => {
      if (take("+") !== null) return signed();
      if (take(...MINUS) !== null) return { op: "negate", of: signed() };
      return power();
    });

  function power(): Expression {
    let base = atom();
    while (take("!") !== null) base = { op: "call", name: "factorial", base: null, of: base };
    if (take("^", "**") === null) return base;
    return { op: "^", left: base, right: nested(() => (take(...MINUS) === null ? power() : negated())) };
  }
  const negated = (): Expression => ({ op: "negate", of: power() });

  const atom = (): Expression => nested(anyAtom);

  function anyAtom(): Expression {
    const digits = matching(/\d+(?:\.\d*)?|\.\d+/y);
    if (digits !== null) return number(digits);
    for (const [open, close] of BRACKETS) if (take(open) !== null) return inside(close);
    if (take("|") !== null) return { op: "call", name: "abs", base: null, of: inside("|") };
    if (take("\\frac", "\\dfrac", "\\tfrac") !== null) return { op: "/", left: argument(), right: argument() };
    if (take("\\sqrt", "sqrt", "√") !== null) {
      const degree = take("[") === null ? null : inside("]");
      return { op: "root", degree, of: argument() };
    }
    const constant = take(...Object.keys(CONSTANTS));
    if (constant !== null) return { op: "name", name: CONSTANTS[constant]! };
    for (const name of FUNCTIONS) if (take(`\\${name}`, name) !== null) return call(name);
    return variable();
  }

  function inside(close: string): Expression {
    const value = sum();
    demand(close);
    return value;
  }

  /** What belongs to a command: a group, or one sign as LaTeX has it. */
  function argument(): Expression {
    if (take("{") !== null) return inside("}");
    const digit = matching(/\d/y);
    return digit === null ? atom() : number(digit);
  }

  function call(name: FunctionName): Expression {
    const base = take("_") === null ? null : argument();
    const exponent = take("^") === null ? null : argument();
    const value: Expression = { op: "call", name, base, of: power() };
    return exponent === null ? value : { op: "^", left: value, right: exponent };
  }

  function variable(): Expression {
    const greek = matching(/\\[a-zA-Z]+(?![a-zA-Z])/y);
    if (greek !== null) {
      if (!GREEK.has(greek.slice(1))) throw new NoExpression();
      return { op: "name", name: greek.slice(1) + subscript() };
    }
    space();
    const letters = /[a-zA-Z]*/y.exec(text.slice(at, at + 2 * MAX_PRODUCT_LETTERS))![0];
    if (letters === "" || letters.length > MAX_PRODUCT_LETTERS) throw new NoExpression();
    at++;
    return { op: "name", name: letters[0]! + subscript() };
  }

  const subscript = (): string => matching(/_(?:[a-zA-Z0-9]|\{[a-zA-Z0-9]{1,8}\})/y) ?? "";

  return {
    sum,
    ended() {
      space();
      return at === text.length;
    },
  };
}

const BRACKETS = [
  ["(", ")"],
  ["{", "}"],
  ["[", "]"],
] as const;

const GREEK = new Set(
  "alpha beta gamma delta epsilon varepsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega".split(
    " ",
  ),
);

function number(text: string): Expression {
  return { op: "number", text, value: decimal(text.replace(/\.$/, "")) };
}
