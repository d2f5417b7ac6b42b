/**
 * Which scored explanations are taken. A selection is data, not a language: thresholds on the parts of a score, joined by
 * `all`, `any` and `not`.
 */
import { PARTS, type Part, type Parts } from "./records.ts";

export const OPERATORS = ["gt", "gte", "lt", "lte", "eq"] as const;
export type Operator = (typeof OPERATORS)[number];

/** `{"reward": {"gte": -1}, "kl.mean": {"lt": 0.5}}`: every part named must fit. */
export type Thresholds = { [P in Part]?: { [O in Operator]?: number | undefined } | undefined };
export type Predicate = { all: Predicate[] } | { any: Predicate[] } | { not: Predicate } | Thresholds;

export interface Selection {
  /**
   * Which of the samples of a question that pass: `raw` the first one, without a look at its score; `best` the one with the
   * highest reward; `all` each.
   */
  rule: "raw" | "best" | "all";
  where: Predicate | null;
}

const HOLDS: Readonly<Record<Operator, (value: number, bound: number) => boolean>> = {
  gt: (value, bound) => value > bound,
  gte: (value, bound) => value >= bound,
  lt: (value, bound) => value < bound,
  lte: (value, bound) => value <= bound,
  eq: (value, bound) => value === bound,
};

/** The first threshold that is not met, in words; null: it passes. A part that a score does not have meets no threshold. */
export function failing(predicate: Predicate, parts: Parts): string | null {
  if ("all" in predicate) {
    for (const each of predicate.all) {
      const fault = failing(each, parts);
      if (fault !== null) return fault;
    }
    return null;
  }
  if ("any" in predicate) {
    const faults = predicate.any.map((each) => failing(each, parts));
    return faults.length === 0 || faults.includes(null) ? null : faults.join(" and ");
  }
  if ("not" in predicate) return failing(predicate.not, parts) === null ? "it is what `not` excludes" : null;
  for (const part of PARTS) {
    const value = parts[part] ?? null;
    for (const [operator, bound] of Object.entries(predicate[part] ?? {}) as [Operator, number | undefined][]) {
      if (bound === undefined) continue;
      if (value === null) return `${part} is not known`;
      if (!HOLDS[operator](value, bound)) return `${part} is ${value}, not ${operator} ${bound}`;
    }
  }
  return null;
}

/** Whether it asks for anything that only a student can say. */
export function needsScore(predicate: Predicate): boolean {
  if ("all" in predicate) return predicate.all.some(needsScore);
  if ("any" in predicate) return predicate.any.some(needsScore);
  if ("not" in predicate) return needsScore(predicate.not);
  return Object.keys(predicate).some((part) => part !== "tokens" && part !== "teacher_surprise");
}
