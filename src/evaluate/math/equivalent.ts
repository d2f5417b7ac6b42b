/** Whether two final answers say the same. Exact rational numbers decide where both are; floating point otherwise. */
import { evaluate, type Value, variablesOf } from "./evaluate.ts";
import { type Expression, parseExpression } from "./parse.ts";
import { equal, toNumber } from "./rational.ts";
import { type Shape, shapeOf } from "./shape.ts";
import { tidy } from "./tidy.ts";

export interface Tolerance {
  /**
   * Relative. 0: rational numbers must be equal, of others only what rounding makes of them is forgiven; otherwise rational ones
   * may differ as much too.
   */
  tolerance: number;
}

/** Longer texts are no final answers: they are compared as they stand. */
const MAX_CHARACTERS = 2_000;
/** Two orders of rounding errors of a hundred operations. */
const ROUNDING = 1e-9;

export function equivalent(a: string, b: string, { tolerance }: Tolerance = { tolerance: 0 }): boolean {
  if (a.length > MAX_CHARACTERS || b.length > MAX_CHARACTERS) return a.trim() === b.trim();
  const [left, right] = [tidy(a), tidy(b)];
  if (left.text === "" || right.text === "") return false;
  if (sameText(left.text, right.text)) return true;
  if (left.percent === right.percent) return sameShape(shapeOf(left.text), shapeOf(right.text), tolerance);
  // 50 % is answered as 50 and as 0.5.
  const [percent, plain] = left.percent ? [left.text, right.text] : [right.text, left.text];
  return [percent, `(${percent})/100`].some((text) => sameShape(shapeOf(text), shapeOf(plain), tolerance));
}

/** Whether it is an expression, a tuple of them, … at all. */
export function isMathematical(text: string): boolean {
  if (text.length > MAX_CHARACTERS) return false;
  const known = (shape: Shape): boolean =>
    shape.kind === "value" ? parseExpression(shape.text) !== null : shape.items.every(known);
  return known(shapeOf(tidy(text).text));
}

const sameText = (a: string, b: string): boolean => dense(a) === dense(b);

/** White space means nothing but between two digits. */
const dense = (text: string): string => text.replace(/(?<!\d)\s+|\s+(?!\d)/g, "");

function sameShape(a: Shape, b: Shape, tolerance: number): boolean {
  if (a.kind === "value" && b.kind === "value") return sameValue(a.text, b.text, tolerance);
  if (a.kind === "value" || b.kind === "value" || a.items.length !== b.items.length) return false;
  if (a.kind === "tuple" && b.kind === "tuple") {
    const sameBrackets = a.brackets === b.brackets;
    return sameBrackets && a.items.every((item, i) => sameShape(item, b.items[i]!, tolerance));
  }
  if (a.kind !== b.kind) return false;
  const left = [...b.items];
  return a.items.every((item) => {
    const at = left.findIndex((other) => sameShape(item, other, tolerance));
    if (at >= 0) left.splice(at, 1);
    return at >= 0;
  });
}

function sameValue(a: string, b: string, tolerance: number): boolean {
  if (sameText(a, b)) return true;
  const [left, right] = [parseExpression(a), parseExpression(b)];
  if (!left || !right) return dense(a).toLowerCase() === dense(b).toLowerCase();
  const names = [...variablesOf(right, variablesOf(left))];
  return POINTS.slice(0, names.length === 0 ? 1 : POINTS.length).every((point) => {
    const at = (expression: Expression): Value => evaluate(expression, (name) => point + place(name));
    return sameNumber(at(left), at(right), tolerance);
  });
}

function sameNumber(a: Value, b: Value, tolerance: number): boolean {
  if (a.exact && b.exact) {
    if (equal(a.exact, b.exact)) return true;
    return tolerance > 0 && near(toNumber(a.exact), toNumber(b.exact), tolerance);
  }
  return a.approximate === b.approximate || near(a.approximate, b.approximate, Math.max(tolerance, ROUNDING));
}

/** False for what is undefined or infinite. */
const near = (a: number, b: number, tolerance: number): boolean =>
  Number.isFinite(a) && Number.isFinite(b) && Math.abs(a - b) <= tolerance * Math.max(Math.abs(a), Math.abs(b));

/**
 * Expressions with variables are compared at three points (Schwartz–Zippel: different ones agree there by a miracle only), away from
 * whole numbers, and positive so that roots and logarithms are defined.
 */
const POINTS = [0.7390851332, 1.3247179572, 2.6651441427] as const;

/** Variables have values of their own: a number in [0, 1) by name. */
function place(name: string): number {
  let hash = 7;
  for (const sign of name) hash = (hash * 31 + sign.codePointAt(0)!) % 9_973;
  return hash / 9_973;
}
