/** What every way of checking an answer has in common. All of them are pure and bounded: an answer is a stranger's text. */

export interface CheckInput {
  /** What the student answered (src/rlt/answer.ts). */
  answer: string;
  /** The row's own. */
  solution: string;
  metadata?: Readonly<Record<string, unknown>> | undefined;
}

export interface Verdict {
  correct: boolean;
  /** What was read out of the answer; null: nothing that could be compared. */
  extracted: string | null;
}

export interface Checker {
  check(input: CheckInput): Verdict;
  /** Why no answer to this row could ever be right, as the end of a sentence ("row 3 …"); null: it can be checked. */
  fault(row: Omit<CheckInput, "answer">): string | null;
}

/** Texts beyond this are looked at from their end only: an answer stands at the end, and the work stays bounded. */
export const MAX_ANSWER_CHARACTERS = 100_000;
/** What is kept of an extracted answer. */
export const MAX_EXTRACTED_CHARACTERS = 1_000;

export const endOf = (text: string): string => text.slice(-MAX_ANSWER_CHARACTERS);

export const NOTHING: Verdict = { correct: false, extracted: null };

export const shorten = (text: string): string => text.slice(0, MAX_EXTRACTED_CHARACTERS);
