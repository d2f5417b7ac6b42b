import { type Checker, endOf, NOTHING, shorten } from "./checker.ts";
import { oneSpaced } from "./exact.ts";

/** What stands in the last `\boxed{…}`, against the solution's (or against the whole of a solution that has none). */
export const boxed: Checker = {
  check({ answer, solution }) {
    const given = lastBoxed(answer);
    if (given === null) return NOTHING;
    return { correct: withoutDollars(given) === expected(solution), extracted: shorten(given) };
  },
  fault: ({ solution }) => (expected(solution) === "" ? "has nothing in its solution to compare with" : null),
};

const expected = (solution: string): string => withoutDollars(lastBoxed(solution) ?? solution);

function withoutDollars(text: string): string {
  const plain = oneSpaced(text);
  return /^\$[^$]*\$$/.test(plain) ? plain.slice(1, -1).trim() : plain;
}

/** Contents of the last `\boxed` or `\fbox` whose braces close; of `\boxed 5`, without braces, what follows as far as a space. */
export function lastBoxed(text: string): string | null {
  const end = endOf(text);
  const closes = closingBraces(end);
  let found: string | null = null;
  let behind = 0;
  for (const { index, 0: box } of end.matchAll(/\\(?:boxed|fbox)(?![a-zA-Z])[ \t]{0,8}/g)) {
    // What stands inside of another is a part of it.
    if (index < behind) continue;
    const at = index + box.length;
    const close = end[at] === "{" ? closes.get(at) : undefined;
    if (close !== undefined) found = end.slice(at + 1, close);
    else if (end[at] !== "{") found = /^[^\s$]*/.exec(end.slice(at, at + LONGEST_BARE))![0];
    behind = close ?? at;
  }
  return found === null ? null : found.trim();
}

/** A number or a letter; more is written with braces. */
const LONGEST_BARE = 64;

/** Of every brace that is closed, where. One pass, however deep they lie; escaped braces are text. */
function closingBraces(text: string): Map<number, number> {
  const closes = new Map<number, number>();
  const open: number[] = [];
  for (let i = 0; i < text.length; i++) {
    const sign = text[i];
    if (sign === "\\") i++;
    else if (sign === "{") open.push(i);
    else if (sign === "}" && open.length > 0) closes.set(open.pop()!, i);
  }
  return closes;
}
