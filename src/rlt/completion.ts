import type { StudentFormat } from "./formats.ts";

/** A teacher's raw output, taken apart at the first closing tag. */
export interface ParsedCompletion {
  /** The explanation, verbatim, never trimmed. */
  thought: string;
  closed: boolean;
  /** Text after the closing tag; it carries no reward and no student sees it. */
  trailing: string;
}

export type Violation =
  | "missing_closing_tag"
  | "empty_explanation"
  | "student_tag"
  | "control_token_text"
  | "trailing_text";

/** The closed list of format violations and what each costs (decisions.md). Penalties add up. */
export const PENALTIES: Record<Violation, number> = {
  missing_closing_tag: -1,
  empty_explanation: -1,
  student_tag: -1,
  control_token_text: -1,
  trailing_text: 0,
};

export interface FormatReport {
  /** No violation that costs anything. */
  ok: boolean;
  penalty: number;
  violations: Violation[];
}

export function parseCompletion(completion: string, close: string): ParsedCompletion {
  const at = completion.indexOf(close);
  if (at < 0) return { thought: completion, closed: false, trailing: "" };
  return { thought: completion.slice(0, at), closed: true, trailing: completion.slice(at + close.length) };
}

/**
 * @param controlTokens texts of the models' special tokens: an explanation that spells one out tries to pass for a turn's end.
 * @param parity the reference does not penalise an empty explanation; this is all that `parity` changes here.
 */
export function judgeFormat(
  parsed: ParsedCompletion,
  student: StudentFormat,
  controlTokens: readonly string[],
  parity: boolean,
): FormatReport {
  const { thought } = parsed;
  const violations: Violation[] = [];
  if (!parsed.closed) violations.push("missing_closing_tag");
  if (thought === "" && !parity) violations.push("empty_explanation");
  if (student.tags.some((tag) => thought.includes(tag))) violations.push("student_tag");
  if (controlTokens.some((token) => thought.includes(token))) violations.push("control_token_text");
  if (parsed.trailing.trim() !== "") violations.push("trailing_text");
  const penalty = violations.reduce((sum, violation) => sum + PENALTIES[violation], 0);
  return { ok: penalty === 0, penalty, violations };
}
