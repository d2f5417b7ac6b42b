/** Scores that stored rows bring along: other coefficients need no new forward pass, only their parts put together anew. */

import type { Violation } from "../rlt/completion.ts";
import type { Coefficients } from "../rlt/reward.ts";
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
  scoring: { temperature: number; estimator: string };
  completion_tokens: number;
  violations: Violation[];
  score: Record<string, number | null> & { text_tokens: number };
  tokens: ScoreRecord["tokens"];
  surprise: QuestionRecord["surprise"];
}

/** Undefined: other models read it, or in another way, or nobody did. */
export function knownOf({ provenance }: SourceRow, config: DistillConfig, temperature: number): Known | undefined {
  const said = provenance as Partial<Provenance> | undefined;
  const { score, tokens, scoring, violations, completion_tokens: length } = said ?? {};
  if (!said || !score || !tokens || !scoring || !violations || length === undefined) return undefined;
  const same =
    said.student === config.student &&
    said.teacher === config.teacher &&
    scoring.temperature === temperature &&
    scoring.estimator === config.kl.estimator;
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

export function judgedAgain({ row, trace }: Question, known: Known, { coefficients }: DistillConfig): QuestionRecord {
  const { score, surprise, tokens, violations } = known;
  const explanation = trace ?? "";
  return {
    row,
    surprise,
    samples: [
      { sample: 0, explanation, tokens, finish: null, violations, score: withCoefficients(score, coefficients) },
    ],
  };
}

/** Equations of src/rlt/reward.ts, from the parts. */
function withCoefficients(score: Known["score"], { solution: s, kl: k }: Coefficients): ScoreRecord {
  const { logprob_mean, logprob_min } = score.solution;
  const solution = { logprob_mean, logprob_min, reward: s.mean * logprob_mean + s.min * logprob_min };
  const kl = score.kl && { ...score.kl, reward: -(k.mean * score.kl.mean + k.max * score.kl.max) };
  return { ...score, solution, kl, reward: solution.reward + (kl?.reward ?? 0) + score.penalty };
}
