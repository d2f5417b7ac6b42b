/** What a person sees of a distillation at the terminal. */
import type { DistillConfig } from "../../distill/config.ts";
import type { DistillProgress } from "../../distill/progress.ts";
import { seconds } from "../../numbers.ts";

const BAR_CELLS = 24;

export function progressLine(progress: DistillProgress): string {
  const { percent, questions, total_questions: total, accepted, rejected, tokens_per_second: rate } = progress;
  const filled = Math.round((percent / 100) * BAR_CELLS);
  const bar = `[${"█".repeat(filled)}${"·".repeat(BAR_CELLS - filled)}]`;
  const left = Object.values(rejected).reduce((sum, count) => sum + count, 0);
  return [
    `${bar} ${Math.floor(percent)} %`,
    `${questions}/${total} questions`,
    `${accepted} rows`,
    ...(left > 0 ? [`${left} left out`] : []),
    ...(rate === null ? [] : [`${rate.toFixed(0)} tok/s`]),
    ...(progress.eta_seconds === null ? [] : [`${duration(progress.eta_seconds)} left`]),
  ].join(" · ");
}

const duration = (secondsLeft: number): string =>
  secondsLeft < 90 ? `${Math.ceil(secondsLeft)} s` : `${Math.ceil(secondsLeft / 60)} min`;

export function summary(
  out: string,
  { accepted, rejected, questions, total_questions: total }: DistillProgress,
  { target_rows: target }: Pick<DistillConfig, "target_rows">,
  milliseconds: number,
): string {
  const reasons = Object.entries(rejected).map(([reason, count]) => `${count} ${reason}`);
  const short =
    target !== null && accepted < target ? `The questions did not suffice for the ${target} rows asked for.\n` : "";
  const why = reasons.length > 0 ? `; left out: ${reasons.join(", ")}` : "";
  return `${short}${out}: ${accepted} rows of ${questions}/${total} questions in ${seconds(milliseconds)}${why}\n`;
}
