/** What a job knows of a question it is done with: one record of its journal. */
import type { ErrorBody } from "../errors.ts";
import type { JournalRecord } from "../jobs/journal.ts";
import type { Violation } from "../rlt/completion.ts";
import type { Surprise } from "../rlt/familiarity.ts";

export interface QuestionRecord extends JournalRecord {
  samples: SampleRecord[];
  /** How unexpected the solution is: to a teacher that knows it, to a student that reads no explanation; null: not known. */
  surprise: { teacher: Surprise | null; student: Surprise | null };
  /** Why nothing could be made of the question. */
  error?: ErrorBody;
}

export interface SampleRecord {
  /** Which of its question, from 0. */
  sample: number;
  /** Without the closing tag. */
  explanation: string;
  /** That were sampled; of a trace that a row brought, those the student reads. */
  tokens: number;
  finish: "stop" | "length" | null;
  violations: Violation[];
  score: ScoreRecord | null;
  /** Why it could not be scored. */
  error?: ErrorBody;
}

export interface ScoreRecord {
  reward: number;
  solution: { logprob_mean: number; logprob_min: number; reward: number };
  kl: { mean: number; max: number; reward: number } | null;
  penalty: number;
  /** Tokens of the whole text as the student learns it: with the end of its turn. */
  text_tokens: number;
  /** What each token cost the student, so that other coefficients need no new forward pass. */
  tokens: { thought: TokenValues; solution: Omit<TokenValues, "kl"> };
}

/** Of every token: where it ends in the bytes of the text, log-prob under the student, KL (null: told by a token before). */
export interface TokenValues {
  ends: number[];
  logprobs: number[];
  kl: (number | null)[];
}

/** Parts of a score by the names of the API, as thresholds and reports speak of them. */
export const PARTS = [
  "reward",
  "solution.logprob_mean",
  "solution.logprob_min",
  "solution.reward",
  "kl.mean",
  "kl.max",
  "kl.reward",
  "format.penalty",
  "uplift",
  "teacher_surprise",
  "student_surprise",
  "tokens",
] as const;
export type Part = (typeof PARTS)[number];
export type Parts = Partial<Record<Part, number | null>>;

/** Surprises are means over the solution's tokens. */
export function partsOf({ score, tokens }: SampleRecord, surprise: QuestionRecord["surprise"]): Parts {
  const teacher = surprise.teacher?.mean ?? null;
  if (!score) return { teacher_surprise: teacher, tokens };
  const { reward, solution, kl, penalty } = score;
  return {
    reward,
    "solution.logprob_mean": solution.logprob_mean,
    "solution.logprob_min": solution.logprob_min,
    "solution.reward": solution.reward,
    "kl.mean": kl?.mean ?? null,
    "kl.max": kl?.max ?? null,
    "kl.reward": kl?.reward ?? null,
    "format.penalty": penalty,
    uplift: surprise.student && solution.logprob_mean + surprise.student.mean,
    teacher_surprise: teacher,
    student_surprise: surprise.student?.mean ?? null,
    tokens,
  };
}
