/** What an expression is worth: exactly where it is rational, in floating point always. */
import type { Expression, FunctionName } from "./parse.ts";
import { add, divide, multiply, negate, power, type Rational, rational, root, toNumber } from "./rational.ts";

export interface Value {
  /** Null: irrational, too long, or with variables. */
  exact: Rational | null;
  /** NaN: undefined. */
  approximate: number;
}

/** `variable`: a number for a name. */
export function evaluate(expression: Expression, variable: (name: string) => number): Value {
  const of = (part: Expression): Value => evaluate(part, variable);
  switch (expression.op) {
    case "number": {
      const { value, text } = expression;
      return { exact: value, approximate: value ? toNumber(value) : Number(text) };
    }
    case "name":
      return { exact: null, approximate: CONSTANTS[expression.name] ?? variable(expression.name) };
    case "negate": {
      const { exact, approximate } = of(expression.of);
      return { exact: negate(exact), approximate: -approximate };
    }
    case "root":
      return rooted(of(expression.of), expression.degree ? of(expression.degree) : TWO);
    case "call":
      return called(expression.name, of(expression.of), expression.base && of(expression.base));
    default:
      return OPERATIONS[expression.op](of(expression.left), of(expression.right));
  }
}

/** Names that stand for no number. */
export function variablesOf(expression: Expression, found: Set<string> = new Set()): Set<string> {
  if (expression.op === "name") {
    if (!(expression.name in CONSTANTS)) found.add(expression.name);
  } else if ("left" in expression) {
    variablesOf(expression.left, found);
    variablesOf(expression.right, found);
  } else if (expression.op !== "number") {
    variablesOf(expression.of, found);
  }
  return found;
}

const CONSTANTS: Readonly<Record<string, number>> = { pi: Math.PI, e: Math.E, infinity: Number.POSITIVE_INFINITY };
const exactly = (value: Rational | null, otherwise: number): Value => ({
  exact: value,
  approximate: value ? toNumber(value) : otherwise,
});
const TWO: Value = exactly(rational(2n), 2);

const OPERATIONS: Readonly<Record<"+" | "*" | "/" | "^", (a: Value, b: Value) => Value>> = {
  "+": (a, b) => exactly(add(a.exact, b.exact), held(a, b, a.approximate + b.approximate)),
  "*": (a, b) => exactly(multiply(a.exact, b.exact), held(a, b, a.approximate * b.approximate)),
  "/": (a, b) => exactly(divide(a.exact, b.exact), b.approximate === 0 ? Number.NaN : a.approximate / b.approximate),
  "^": raised,
};

/** Infinite is only what is written so: numbers that are too great to hold are not all the same. */
const held = (a: Value, b: Value, result: number): number =>
  Number.isFinite(a.approximate) && Number.isFinite(b.approximate) && !Number.isFinite(result) ? Number.NaN : result;

/** a^(p/q) is the q-th root of a^p. */
function raised(a: Value, b: Value): Value {
  const { numerator = 0n, denominator = 0n } = b.exact ?? {};
  const whole = power(a.exact, b.exact && rational(numerator));
  const exact = denominator === 1n ? whole : denominator > 64n ? null : root(whole, Number(denominator));
  return exactly(exact, held(a, b, a.approximate ** b.approximate));
}

function rooted(of: Value, degree: Value): Value {
  const n = degree.approximate;
  const isWhole = Number.isInteger(n) && n >= 2;
  const odd = isWhole && n % 2 === 1;
  const size = Math.abs(of.approximate) ** (1 / n);
  const approximate = of.approximate >= 0 ? size : odd ? -size : Number.NaN;
  return exactly(isWhole ? root(of.exact, n) : null, approximate);
}

/** Of 170 the factorial is the last that a number holds; greater ones are not computed. */
const MAX_FACTORIAL = 170;

function called(name: FunctionName, of: Value, base: Value | null): Value {
  const x = of.approximate;
  if (name === "abs") return exactly(of.exact && of.exact.numerator < 0n ? negate(of.exact) : of.exact, Math.abs(x));
  if (name === "factorial") {
    if (!Number.isInteger(x) || x < 0 || x > MAX_FACTORIAL) return { exact: null, approximate: Number.NaN };
    let product = 1n;
    for (let i = 2n; i <= BigInt(x); i++) product *= i;
    return exactly(rational(product), Number(product));
  }
  if (name === "log") return { exact: null, approximate: Math.log(x) / Math.log(base?.approximate ?? 10) };
  return { exact: null, approximate: FUNCTIONS[name](x) };
}

const FUNCTIONS: Readonly<Record<Exclude<FunctionName, "abs" | "factorial" | "log">, (x: number) => number>> = {
  sin: Math.sin,
  cos: Math.cos,
  tan: Math.tan,
  cot: (x) => 1 / Math.tan(x),
  sec: (x) => 1 / Math.cos(x),
  csc: (x) => 1 / Math.sin(x),
  arcsin: Math.asin,
  arccos: Math.acos,
  arctan: Math.atan,
  ln: Math.log,
  exp: Math.exp,
};
