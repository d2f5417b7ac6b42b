/** Scores that stored rows bring along: other coefficients need no new forward pass, only their parts put together anew. */

import { createHash } from "node:crypto";
import type { Violation } from "../rlt/completion.ts";
import { type Coefficients, emptyKl, klOf, solutionOf, totalReward } from "../rlt/reward.ts";
import type { DistillConfig } from "./config.ts";
import type { SourceRow } from "./job-deps.ts";
import type { Question } from "./question.ts";
import type { QuestionRecord, ScoreRecord } from "./records.ts";

export interface Known {
  score: Omit<ScoreRecord, "reward">;
  surprise: QuestionRecord["surprise"];
  tokens: number;
  violations: Violation[];
}

/** What a row says of itself, as output.ts writes it. */
interface Provenance {
  teacher: string | null;
  student: string | null;
  scoring: { temperature: number; estimator: string; k: number; text_hash: string };
  completion_tokens: number;
  violations: Violation[];
  score: Record<string, number | null> & { text_tokens: number };
  tokens: ScoreRecord["tokens"];
  surprise: QuestionRecord["surprise"];
}

/** Of what was read: a row whose text was edited since has to be read again. */
export function hashOfTexts({ question, solution }: Pick<SourceRow, "question" | "solution">, trace: string): string {
  return createHash("sha256")
    .update(JSON.stringify([question, solution, trace]))
    .digest("hex")
    .slice(0, TEXT_HASH_DIGITS);
}

/** 64 bits: no two rows of a dataset are taken for each other. */
const TEXT_HASH_DIGITS = 16;

/** Undefined: other models read it, or in another way, or another text, or nobody did. */
export function knownOf(row: SourceRow, config: DistillConfig, temperature: number): Known | undefined {
  const said = row.provenance;
  if (!isProvenance(said)) return undefined;
  const { score, tokens, scoring, violations, completion_tokens: length } = said;
  const same =
    said.student === config.student &&
    said.teacher === config.teacher &&
    scoring.temperature === temperature &&
    scoring.estimator === config.kl.estimator &&
    (scoring.estimator !== "topk_tail" || scoring.k === config.kl.k) &&
    scoring.text_hash === hashOfTexts(row, row.reasoning_trace ?? "");
  const mean = score["solution.logprob_mean"];
  const min = score["solution.logprob_min"];
  if (!same || typeof mean !== "number" || typeof min !== "number") return undefined;
  const kl = typeof score["kl.mean"] === "number" && typeof score["kl.max"] === "number";
  return {
    score: {
      solution: { logprob_mean: mean, logprob_min: min, reward: 0 },
      kl: kl ? { mean: score["kl.mean"]!, max: score["kl.max"]!, reward: 0 } : null,
      penalty: score["format.penalty"] ?? 0,
      text_tokens: score.text_tokens,
      tokens,
    },
    surprise: said.surprise ?? { teacher: null, student: null },
    tokens: length,
    violations,
  };
}

/** Rows come from anywhere: what only looks like ours is read again. */
function isProvenance(said: unknown): said is Provenance {
  const { score, tokens, scoring, violations, completion_tokens: length, surprise } = fieldsOf(said);
  const { thought, solution } = fieldsOf(tokens);
  const isNumber = (value: unknown): boolean => typeof value === "number";
  const areNumbers = (value: unknown): boolean => Array.isArray(value) && value.every(isNumber);
  const isSurprise = (value: unknown): boolean => value == null || isNumber(fieldsOf(value).mean);
  const { ends, logprobs, kl } = fieldsOf(thought);
  const read = fieldsOf(solution);
  return (
    isNumber(fieldsOf(score).text_tokens) &&
    typeof scoring === "object" &&
    scoring !== null &&
    isNumber(length) &&
    Array.isArray(violations) &&
    violations.every((each) => typeof each === "string") &&
    [ends, logprobs, read.ends, read.logprobs].every(areNumbers) &&
    Array.isArray(kl) &&
    kl.every((value) => value === null || isNumber(value)) &&
    Object.values(fieldsOf(surprise)).every(isSurprise)
  );
}

const fieldsOf = (value: unknown): Record<string, unknown> =>
  typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};

export function judgedAgain(
  { row, trace }: Question,
  known: Known,
  { coefficients, teacher }: DistillConfig,
): QuestionRecord {
  const { score, surprise, tokens, violations } = known;
  const explanation = trace ?? "";
  return {
    row,
    surprise,
    samples: [
      {
        sample: 0,
        explanation,
        tokens,
        finish: null,
        violations,
        score: withCoefficients(score, coefficients, teacher),
      },
    ],
  };
}

/** With a teacher, no KL means that there was nothing to compare. */
function withCoefficients(score: Known["score"], coefficients: Coefficients, teacher: string | null): ScoreRecord {
  const { penalty } = score;
  const solution = solutionOf(score.solution.logprob_mean, score.solution.logprob_min, coefficients);
  const kl = score.kl && klOf(score.kl.mean, score.kl.max, coefficients);
  const cost = kl ?? (teacher === null ? null : emptyKl(coefficients));
  return { ...score, solution, kl, reward: totalReward(solution, cost, { penalty }) };
}
