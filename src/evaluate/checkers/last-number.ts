import { add, decimal, divide, equal, negate, type Rational, rational, toNumber } from "../math/rational.ts";
import { type Checker, endOf, NOTHING, shorten } from "./checker.ts";

/** The last number of the answer against the last one of the solution: 1,234.50 is 1234.5, 3/4 is 0.75. */
export function lastNumber({ tolerance }: { tolerance: number }): Checker {
  return {
    check({ answer, solution }) {
      const given = readLast(answer);
      const expected = readLast(solution);
      if (!given) return NOTHING;
      return { correct: expected !== null && same(given, expected, tolerance), extracted: shorten(given.text) };
    },
    fault: ({ solution }) => (readLast(solution) === null ? "has no number in its solution" : null),
  };
}

interface Written {
  text: string;
  value: Rational;
  percent: boolean;
}

/** Longer runs of digits are no answer; longer than any number that is one. */
const DIGITS = String.raw`(?:\d{1,3}(?:,\d{3}){1,20}(?!\d)|\d{1,300})(?:\.\d{1,300})?|\.\d{1,300}`;
/** A minus behind a digit, a letter or a bracket is a difference. */
const NUMBER = new RegExp(
  String.raw`((?<![\w)\]}.]\s?)[-−–])?\$?\s?(?:(\d{1,9})\s+)?(${DIGITS})(?:\s?\/\s?(\d{1,300})(?![\d.]))?(\s?\\?%)?`,
  "g",
);

function readLast(text: string): Written | null {
  let last: Written | null = null;
  for (const match of endOf(text).matchAll(NUMBER)) last = read(match) ?? last;
  return last;
}

function read([text, sign, whole, digits, under, percent]: RegExpMatchArray): Written | null {
  const over = decimal(digits!.replaceAll(",", ""));
  const fraction = under === undefined ? over : divide(over, decimal(under));
  // "2 3/4" is one number, "2 3" are two: the last of them counts.
  const mixed = whole !== undefined && under !== undefined && /^\d+$/.test(digits!);
  const value = mixed ? add(rational(BigInt(whole)), fraction) : fraction;
  if (!value) return null;
  const negative = sign !== undefined && (mixed || whole === undefined);
  return { text: text!.trim(), value: (negative ? negate(value) : value)!, percent: percent !== undefined };
}

function same(a: Written, b: Written, tolerance: number): boolean {
  if (close(a.value, b.value, tolerance)) return true;
  if (a.percent === b.percent) return false;
  // 50 % is answered as 50 and as 0.5.
  const [percent, plain] = a.percent ? [a, b] : [b, a];
  const share = divide(percent.value, rational(100n));
  return share !== null && close(share, plain.value, tolerance);
}

function close(a: Rational, b: Rational, tolerance: number): boolean {
  if (equal(a, b)) return true;
  const [x, y] = [toNumber(a), toNumber(b)];
  return tolerance > 0 && Math.abs(x - y) <= tolerance * Math.max(Math.abs(x), Math.abs(y));
}
