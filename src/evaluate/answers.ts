/** How answers are checked, by name. */
import { boxed } from "./checkers/boxed.ts";
import type { Checker } from "./checkers/checker.ts";
import { choice } from "./checkers/choice.ts";
import { countdown } from "./checkers/countdown.ts";
import { exact } from "./checkers/exact.ts";
import { lastNumber } from "./checkers/last-number.ts";
import { math } from "./checkers/math.ts";

/** A name with all its options filled in. */
export type AnswerSpec =
  | { type: "exact" | "boxed" | "choice" }
  | { type: "last_number" | "math"; tolerance: number }
  | { type: "countdown"; use_all: boolean };

export const ANSWER_TYPES = [
  "exact",
  "boxed",
  "last_number",
  "choice",
  "math",
  "countdown",
] as const satisfies readonly AnswerSpec["type"][];

export function checkerOf(spec: AnswerSpec): Checker {
  switch (spec.type) {
    case "exact":
      return exact;
    case "boxed":
      return boxed;
    case "choice":
      return choice;
    case "last_number":
      return lastNumber(spec);
    case "math":
      return math(spec);
    case "countdown":
      return countdown(spec);
  }
}
