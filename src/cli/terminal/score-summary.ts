import { nameOf } from "../../api/models/named.ts";
import { fixed, percent, signed } from "../../numbers.ts";
import type { ScoreBody } from "../server/types.ts";
import type { Style } from "./style.ts";

/** The reward and where it comes from, in a few lines. */
export function scoreSummary(score: ScoreBody, style: Style): string {
  const { solution, kl, format, baseline } = score;
  const lines = [
    `${style.bold(`reward    ${fixed(score.reward)}`)}`,
    `solution  ${fixed(solution.reward)}  log-prob per token: mean ${fixed(solution.logprob_mean)} (p ${percent(Math.exp(solution.logprob_mean))}), lowest ${fixed(solution.logprob_min)}`,
    kl
      ? `kl        ${fixed(kl.reward)}  per token: mean ${fixed(kl.mean)}, highest ${fixed(kl.max)}, estimator ${kl.estimator}`
      : `kl        –       ${score.teacher ? "the explanation is empty" : "no teacher named"}`,
    `format    ${fixed(format.penalty)}  ${format.ok ? "ok" : `violations: ${format.violations.join(", ")}`}`,
  ];
  if (baseline) {
    lines.push(
      `baseline  without the explanation the mean log-prob is ${fixed(baseline.solution_logprob_mean)}; uplift ${signed(baseline.uplift)}`,
    );
  }
  const teacher = score.teacher ? `, teacher ${nameOf(score.teacher)}` : "";
  lines.push(style.dim(`student ${nameOf(score.student)}${teacher}`));
  for (const warning of score.warnings) lines.push(style.yellow(`warning: ${WARNINGS[warning]}`));
  return lines.join("\n");
}

const WARNINGS: Record<ScoreBody["warnings"][number], string> = {
  foreign_text:
    "the teacher did not sample this text, so the k1 estimate misleads; compare by --kl full or topk_tail, or by the solution's part",
  estimated_logprobs: "a remote server reports log-probs at temperature 1 only; the reward is an estimate (see ±)",
  no_thought_token: "no token lies wholly inside the explanation, so there is no KL",
};
