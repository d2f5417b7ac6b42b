/** Exact rational numbers. Sizes are bounded: beyond `MAX_BITS` a result is null, and the caller goes on with floating point. */

export interface Rational {
  numerator: bigint;
  /** > 0, in lowest terms. */
  denominator: bigint;
}

/** A thousand digits: more than any answer has, and products of them take microseconds. */
const MAX_BITS = 4_096n;
const LIMIT = 1n << MAX_BITS;
/** Powers beyond it would leave the limit for every base but 0 and ±1. */
const MAX_EXPONENT = 4_096n;

export function rational(numerator: bigint, denominator = 1n): Rational | null {
  if (denominator === 0n) return null;
  if (abs(numerator) >= LIMIT || abs(denominator) >= LIMIT) return null;
  const shared = gcd(abs(numerator), abs(denominator)) * (denominator < 0n ? -1n : 1n);
  return { numerator: numerator / shared, denominator: denominator / shared };
}

/** Digits, a point, digits, as they are written in decimal. */
export function decimal(text: string): Rational | null {
  const [whole = "", fraction = ""] = text.split(".");
  if (whole.length + fraction.length > MAX_DIGITS) return null;
  return rational(BigInt(whole + fraction || "0"), 10n ** BigInt(fraction.length));
}

/** What fits into the limit of bits. */
const MAX_DIGITS = 1_200;

type Maybe = Rational | null;

export const add = (a: Maybe, b: Maybe): Maybe =>
  a && b && rational(a.numerator * b.denominator + b.numerator * a.denominator, a.denominator * b.denominator);

export const multiply = (a: Maybe, b: Maybe): Maybe =>
  a && b && rational(a.numerator * b.numerator, a.denominator * b.denominator);

export const negate = (a: Maybe): Maybe => a && { numerator: -a.numerator, denominator: a.denominator };

/** Null for a division by zero too. */
export const divide = (a: Maybe, b: Maybe): Maybe =>
  a && b && rational(a.numerator * b.denominator, a.denominator * b.numerator);

/** Null where the result is no rational number, or too long. */
export function power(a: Maybe, b: Maybe): Maybe {
  if (!a || b?.denominator !== 1n) return null;
  const times = abs(b.numerator);
  if (times > MAX_EXPONENT || (a.numerator === 0n && b.numerator <= 0n)) return null;
  // Judged before it is computed.
  const bits = BigInt(Math.max(lengthOf(a.numerator), lengthOf(a.denominator)));
  if (bits > 1n && (bits - 1n) * times > MAX_BITS) return null;
  const raised = [a.numerator ** times, a.denominator ** times] as const;
  return b.numerator < 0n ? rational(raised[1], raised[0]) : rational(raised[0], raised[1]);
}

/** The root that is rational itself. */
export function root(a: Maybe, degree: number): Maybe {
  if (!a || degree < 2 || degree > 64 || (a.numerator < 0n && degree % 2 === 0)) return null;
  const top = wholeRoot(abs(a.numerator), degree);
  const bottom = wholeRoot(a.denominator, degree);
  if (top === null || bottom === null) return null;
  return rational(a.numerator < 0n ? -top : top, bottom);
}

export const equal = (a: Rational, b: Rational): boolean =>
  a.numerator === b.numerator && a.denominator === b.denominator;

/** The nearest number; quotients of very long numbers do not overflow. */
export function toNumber({ numerator, denominator }: Rational): number {
  const excess = Math.max(0, Math.min(lengthOf(numerator), lengthOf(denominator)) - 1_000);
  return Number(numerator >> BigInt(excess)) / Number(denominator >> BigInt(excess));
}

/** Newton's steps from above. */
function wholeRoot(value: bigint, degree: number): bigint | null {
  if (value < 2n) return value;
  const n = BigInt(degree);
  let guess = 1n << BigInt(Math.ceil(lengthOf(value) / degree));
  for (;;) {
    const next = ((n - 1n) * guess + value / guess ** (n - 1n)) / n;
    if (next >= guess) break;
    guess = next;
  }
  return guess ** n === value ? guess : null;
}

const abs = (value: bigint): bigint => (value < 0n ? -value : value);
/** In bits. */
function lengthOf(value: bigint): number {
  const digits = abs(value).toString(16);
  return (digits.length - 1) * 4 + Number.parseInt(digits[0]!, 16).toString(2).length;
}

function gcd(a: bigint, b: bigint): bigint {
  let [x, y] = [a, b];
  while (y !== 0n) [x, y] = [y, x % y];
  return x === 0n ? 1n : x;
}
