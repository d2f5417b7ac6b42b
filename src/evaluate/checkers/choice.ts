import { lastBoxed } from "./boxed.ts";
import { type Checker, endOf, NOTHING } from "./checker.ts";

/** One of several choices, A to E, in the wordings that models use. */
export const choice: Checker = {
  check({ answer, solution }) {
    const given = letterOf(answer);
    return given === null ? NOTHING : { correct: given === letterOf(solution), extracted: given };
  },
  fault: ({ solution }) => (letterOf(solution) === null ? "has none of the letters A to E as its solution" : null),
};

/** "answer is", "option:", and what dresses a letter. */
const BEFORE = String.raw`\b(?:[Aa]nswer|ANSWER|[Cc]hoice|[Oo]ption)\b(?:\s+(?:choice|option))?\s*(?:is|:|=|\s)\s*:?\s*(?:(?:choice|option)\s+)?[*_$\\({[\s]{0,8}(?:(?:text|mathrm|mathbf)\{)?[({[]?`;

/**
 * The surest wording that occurs decides, and of several of one wording the last. They are looked for where any run of blanks is
 * one blank or line end: in a run of thousands, as small students write, they would try every way to share it out.
 */
const WORDINGS: readonly RegExp[] = [
  new RegExp(`${BEFORE}([A-E])(?![a-zA-Z'’])`, "g"),
  // "the answer is a number" names none.
  new RegExp(String.raw`${BEFORE}([a-e])(?![a-zA-Z'’]|\s+[a-zA-Z])`, "g"),
  // (B), [B]
  /[([]\s?([A-E])\s?[)\]]/g,
  // **B**, **B.**
  /\*\*\s?([A-E])\s?[.):]?\s?\*\*/g,
  // At the beginning of a line: B. … or B) …
  /(?:^|\n)\s{0,8}([A-E])\s?[.):](?=\s|$)/g,
  // Alone on a line.
  /(?:^|\n)[ \t]{0,8}([A-E])[ \t]{0,8}[.]?(?=\n|$)/g,
  // Anywhere, if it cannot be the word "A".
  /(?<![\w'’.])([B-E])(?![\w'’])/g,
];

/** A whole text that is a letter, however it is dressed; small ones too. */
const ALONE = /^[\s*_$\\({[]{0,8}(?:text\{|mathrm\{|mathbf\{)?[({[]?([A-Ea-e])[)}\]\s*_$.:]{0,8}$/;

export function letterOf(text: string): string | null {
  const end = endOf(text);
  for (const place of [lastBoxed(end), end]) {
    const alone = place === null ? null : ALONE.exec(place);
    if (alone) return alone[1]!.toUpperCase();
  }
  const plain = end.replace(/\s+/g, (blanks) => (blanks.includes("\n") ? "\n" : " "));
  for (const wording of WORDINGS) {
    let last: string | null = null;
    for (const match of plain.matchAll(wording)) last = match[1]!;
    if (last !== null) return last.toUpperCase();
  }
  return null;
}
