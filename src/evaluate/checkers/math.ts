import { equivalent, isMathematical } from "../math/equivalent.ts";
import { lastBoxed } from "./boxed.ts";
import { type Checker, endOf, shorten } from "./checker.ts";

/** The final answer as mathematics: `\frac{1}{2}`, 0.5 and 2/4 are one. `tolerance`: relative, 0 by default. */
export function math({ tolerance }: { tolerance: number }): Checker {
  return {
    check({ answer, solution }) {
      const given = finalAnswer(answer);
      const correct = given !== null && equivalent(given, finalAnswer(solution) ?? solution, { tolerance });
      return { correct, extracted: given && shorten(given) };
    },
    fault: ({ solution }) => (finalAnswer(solution) === null ? "has no final answer in its solution" : null),
  };
}

/** Longer texts tell how one arrives at an answer. */
const MAX_SHORT = 200;

/**
 * Where a final answer stands, the surest place first: the last `\boxed`, GSM8K's `####`, "the answer is …", the whole text if it is
 * short, the last formula between dollars, the last line, the last number.
 */
export function finalAnswer(text: string): string | null {
  const end = endOf(text).trim();
  const surest = lastBoxed(end) ?? lastOf(end, /####[ \t]*([^\n]{1,200})/g) ?? announced(end);
  if (surest !== null) return surest.trim() || null;
  if (end.length <= MAX_SHORT && !end.includes("\n") && isMathematical(end)) return end;
  const formula = lastOf(end, /\$([^$\n]{1,200})\$/g) ?? lastOf(end, /\\\(([^\n]{1,200}?)\\\)/g);
  if (formula !== null) return formula;
  const line = end.slice(end.lastIndexOf("\n") + 1).trim();
  if (line !== "" && line.length <= MAX_SHORT) {
    const right = line.slice(line.lastIndexOf("=") + 1).trim();
    if (isMathematical(right)) return right;
  }
  const number = lastOf(end, /((?<![\w.)])[-−]?\d[\d,]*(?:\.\d+)?(?:\/\d+)?)/g);
  return number ?? (end !== "" && end.length <= MAX_SHORT ? end : null);
}

/** "The answer is 5." as far as the end of the sentence or line. */
function announced(text: string): string | null {
  const found = lastOf(text, /\banswer(?:\s+is)?\s*[:=]?\s*(?:is\s+)?([^\n]{1,200})/gi);
  if (found === null) return null;
  const sentence = found.split(/\.(?:\s|$)/)[0]!.replace(/^[*_\s]+|[*_\s]+$/g, "");
  if (isMathematical(sentence)) return sentence;
  return lastOf(sentence, /\$([^$]+)\$/g);
}

function lastOf(text: string, pattern: RegExp): string | null {
  let last: string | null = null;
  for (const match of text.matchAll(pattern)) last = match[1]!;
  return last;
}
