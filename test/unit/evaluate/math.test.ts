import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { equivalent } from "../../../src/evaluate/math/equivalent.ts";
import { evaluate } from "../../../src/evaluate/math/evaluate.ts";
import { parseExpression } from "../../../src/evaluate/math/parse.ts";
import {
  add,
  decimal,
  divide,
  equal,
  multiply,
  power,
  rational,
  root,
  toNumber,
} from "../../../src/evaluate/math/rational.ts";

const SAME: [string, string][] = [
  ["1/2", "0.5"],
  ["\\frac{1}{2}", "\\dfrac{2}{4}"],
  ["\\frac12", "\\tfrac{1}{2}"],
  ["\\frac1{72}", "\\frac{1}{72}"],
  ["-\\frac{1}{3}", "\\frac{-1}{3}"],
  ["1\\frac{1}{2}", "3/2"],
  ["2 1/2", "2.5"],
  ["3.0", "3"],
  ["1,234", "1234"],
  ["1{,}234{,}567", "1234567"],
  ["\\$5", "5"],
  ["5 \\text{ cm}", "5"],
  ["5\\text{ cm}^2", "5"],
  ["12 square inches", "12"],
  ["5cm", "5"],
  ["90^\\circ", "90"],
  ["90^{\\circ}", "90°"],
  ["50\\%", "50"],
  ["50\\%", "0.5"],
  ["50%", "\\frac{1}{2}"],
  ["x = 5", "5"],
  ["f(x) = x^2", "x^{2}"],
  ["\\sqrt{8}", "2\\sqrt2"],
  ["\\sqrt[3]{27}", "3"],
  ["\\sqrt{\\frac{4}{9}}", "\\frac23"],
  ["2\\pi", "\\pi \\cdot 2"],
  ["2π", "2\\pi"],
  ["2\\times 3", "6"],
  ["2^{10}", "1024"],
  ["2^10", "1024"],
  ["-2^2", "-4"],
  ["2^{-1}", "0.5"],
  ["8^{1/3}", "2"],
  ["e^{0}", "1"],
  ["5!", "120"],
  ["|-3|", "3"],
  ["(x+1)(x-1)", "x^2-1"],
  ["\\frac{x}{2}", "0.5x"],
  ["\\sin 30", "\\sin{30}"],
  ["\\log_2 8", "3"],
  ["\\ln e", "1"],
  ["\\left( 1, 2 \\right)", "(1,2)"],
  ["(\\frac12, 3)", "(0.5,3.0)"],
  ["[0, 1)", "[0,1)"],
  ["(-\\infty, 2] \\cup (3, \\infty)", "(3,\\infty)\\cup(-\\infty,2]"],
  ["\\{2, 1\\}", "\\{1, 2\\}"],
  ["1, 2", "2, 1"],
  ["1 \\text{ and } 2", "2,1"],
  ["1 \\pm \\sqrt{2}", "1+\\sqrt{2}, 1-\\sqrt{2}"],
  ["\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", "\\begin{pmatrix}1&\\frac42\\\\3&4\\end{pmatrix}"],
  ["\\text{east}", "East"],
  ["x \\ge 5", "x\\geq 5"],
  ["5.", "5"],
  ["$5$", "\\(5\\)"],
  ["2^{2024}", "2\\cdot 2^{2023}"],
  ["0.1 + 0.2", "0.3"],
  ["\\mathbf{7}", "7"],
  ["1/(1/2)", "2"],
];

const DIFFERENT: [string, string][] = [
  ["0.333", "\\frac13"],
  ["3.14", "\\pi"],
  ["1.41421356", "\\sqrt{2}"],
  ["5", "-5"],
  ["(1,2)", "(2,1)"],
  ["(0,1)", "[0,1]"],
  ["1, 2", "1, 3"],
  ["1, 2", "1"],
  ["1, 1", "1, 2"],
  ["x+1", "x+2"],
  ["x", "y"],
  ["ab", "a+b"],
  ["", "5"],
  ["east", "seat"],
  ["1/0", "2/0"],
  ["\\sqrt{-1}", "\\sqrt{-2}"],
  ["0.5\\%", "50\\%"],
  ["1 2", "12"],
  ["2^{2024}", "2^{2023}"],
  ["\\infty", "-\\infty"],
  ["x > 5", "x < 5"],
  ["10^{20}", "10^{20}+1"],
  ["\\frac{1}{2", "0.5"],
];

describe("equivalent", () => {
  test.each(SAME)("%s is %s", (a, b) => {
    expect([equivalent(a, b), equivalent(b, a)]).toEqual([true, true]);
  });
  test.each(DIFFERENT)("%s is not %s", (a, b) => {
    expect([equivalent(a, b), equivalent(b, a)]).toEqual([false, false]);
  });
  test("a tolerance forgives rational numbers too", () => {
    expect(equivalent("0.3333", "\\frac13", { tolerance: 1e-3 })).toBe(true);
    expect(equivalent("0.33", "\\frac13", { tolerance: 1e-3 })).toBe(false);
    expect(equivalent("3.1416", "\\pi", { tolerance: 1e-4 })).toBe(true);
  });
});

/** A random tree as text, beside what a second evaluator makes of it. */
const tree = fc.letrec<{ node: [string, bigint, bigint] }>((tie) => ({
  node: fc.oneof(
    { maxDepth: 5, withCrossShrink: true },
    fc.integer({ min: 0, max: 99 }).map((n): [string, bigint, bigint] => [String(n), BigInt(n), 1n]),
    fc
      .tuple(tie("node"), fc.constantFrom("+", "-", "\\cdot", "/", "\\frac"), tie("node"))
      .map(([[a, p, q], op, [b, r, s]]): [string, bigint, bigint] => {
        if (op === "+") return [`(${a} + ${b})`, p * s + r * q, q * s];
        if (op === "-") return [`(${a} - ${b})`, p * s - r * q, q * s];
        if (op === "\\cdot") return [`(${a})\\cdot(${b})`, p * r, q * s];
        return [op === "/" ? `((${a})/(${b}))` : `\\frac{${a}}{${b}}`, p * s, q * r];
      }),
  ),
})).node;

test("arithmetic is exact: a second evaluator on whole numbers agrees", () => {
  fc.assert(
    fc.property(tree, ([text, over, under]) => {
      fc.pre(text.length < 900 && under !== 0n);
      const parsed = parseExpression(text);
      const { exact } = evaluate(parsed!, () => Number.NaN);
      // A division by zero anywhere inside leaves no exact value.
      if (exact) expect(equal(exact, rational(over, under)!)).toBe(true);
      else expect(text).toMatch(/frac|\//);
    }),
  );
});

describe("rational numbers", () => {
  const fraction = fc
    .tuple(fc.bigInt({ min: -(10n ** 12n), max: 10n ** 12n }), fc.bigInt({ min: 1n, max: 10n ** 6n }))
    .map(([p, q]) => rational(p, q)!);
  test("are a field", () => {
    fc.assert(
      fc.property(fraction, fraction, fraction, (a, b, c) => {
        expect(equal(multiply(a, add(b, c))!, add(multiply(a, b), multiply(a, c))!)).toBe(true);
        if (b.numerator !== 0n) expect(equal(multiply(divide(a, b), b)!, a)).toBe(true);
      }),
    );
  });
  test("roots undo powers, and others are none", () => {
    fc.assert(
      fc.property(fraction, fc.integer({ min: 2, max: 7 }), (a, n) => {
        const raised = power(a, rational(BigInt(n)));
        const back = root(raised, n)!;
        expect(equal(back, n % 2 === 0 && a.numerator < 0n ? rational(-a.numerator, a.denominator)! : a)).toBe(true);
      }),
    );
    expect(root(rational(2n), 2)).toBeNull();
    expect(root(rational(-4n), 2)).toBeNull();
  });
  test("what is too long is none, and is not computed", () => {
    expect(power(rational(9n), rational(10n ** 9n))).toBeNull();
    expect(decimal("9".repeat(5000))).toBeNull();
    expect(divide(rational(1n), rational(0n))).toBeNull();
    expect(power(rational(0n), rational(-1n))).toBeNull();
  });
  test("the nearest number is finite for quotients of long ones", () => {
    const long = power(rational(10n), rational(400n));
    expect(toNumber(divide(long, multiply(long, rational(4n)))!)).toBe(0.25);
    expect(toNumber(divide(add(long, rational(1n)), long)!)).toBeCloseTo(1, 12);
  });
});

test("what is no expression is none", () => {
  for (const text of [
    "",
    "1 +",
    "(1",
    "1)",
    "\\foo",
    "1 2",
    "2..3",
    "\\frac{1}",
    "$",
    "words here",
    `${"(".repeat(500)}1${")".repeat(500)}`,
  ]) {
    expect(parseExpression(text), text).toBeNull();
  }
});
