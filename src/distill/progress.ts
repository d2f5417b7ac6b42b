/** How far a job has come, as its callers see it and as it finds itself again after a kill. */
import type { JobContext } from "../jobs/context.ts";
import type { DistillConfig } from "./config.ts";
import type { SourceRow } from "./job-deps.ts";
import type { Spent } from "./question.ts";
import { partsOf, type QuestionRecord } from "./records.ts";
import type { Reason, Selected, SelectionState } from "./select.ts";

export type Stage = "generate" | "write" | "finetune" | "evaluate";

/** Kept with the job; what earlier workers did counts on. */
export interface DistillProgress {
  /** Questions and, behind them, steps of training: it only grows. */
  step: number;
  stage: Stage;
  /** Which of several of the stage: `before`, `solutions`, … */
  part: string | null;
  questions: number;
  total_questions: number;
  accepted: number;
  rejected: Partial<Record<Reason, number>>;
  percent: number;
  eta_seconds: number | null;
  tokens_sampled: number;
  tokens_scored: number;
  tokens_trained: number;
  /** Sampled, by the worker that has it now. */
  tokens_per_second: number | null;
  /** Of all workers together. */
  seconds: number;
  /** What the stages that are done have made. */
  made: Record<string, unknown>;
}

/** Before any worker has it. */
export const NOTHING_YET: Omit<DistillProgress, "total_questions"> = {
  step: 0,
  stage: "generate",
  part: null,
  questions: 0,
  accepted: 0,
  rejected: {},
  percent: 0,
  eta_seconds: null,
  tokens_sampled: 0,
  tokens_scored: 0,
  tokens_trained: 0,
  tokens_per_second: null,
  seconds: 0,
  made: {},
};

export interface Progress {
  readonly now: DistillProgress;
  spent(spent: Spent): void;
  isSpent(budget: DistillConfig["budget"]): boolean;
  /** What there is for the stages to come; null: without limit. */
  left(budget: DistillConfig["budget"]): DistillConfig["budget"];
  /** A question was taken; tells it, now and then, with metrics and samples. */
  question(record: QuestionRecord, row: SourceRow, selected: Selected, selection: SelectionState): Promise<void>;
  /** Written now and then. */
  tell(changes: Partial<DistillProgress>): Promise<void>;
  /** Written at once. */
  update(changes: Partial<DistillProgress>): Promise<void>;
  /** What a stage has made, kept before the next one begins. */
  made(name: string, value: unknown): Promise<void>;
}

/** Often enough for somebody who watches, and no load for a database. */
const WRITE_EVERY_MS = 1_000;
/** Points of each curve, and samples among the events, over a whole job. */
const POINTS = 200;
const SAMPLES_SHOWN = 50;

export function createProgress(
  context: JobContext,
  config: DistillConfig,
  count: number,
  clock: () => number,
): Progress {
  const before = context.job.progress as DistillProgress | null;
  const now: DistillProgress = before
    ? { ...before, tokens_per_second: null, eta_seconds: null }
    : { ...NOTHING_YET, total_questions: count };
  const earlier = { seconds: now.seconds, sampled: now.tokens_sampled };
  const begun = clock();
  let written = Number.NEGATIVE_INFINITY;
  // Questions whose work was done by this worker; the others only passed by.
  let fresh = 0;
  const rewards = { sum: 0, count: 0 };
  // What an earlier worker has told is not told again.
  const told = now.questions;

  const elapsed = (): number => (clock() - begun) / 1000;
  const left: Progress["left"] = ({ tokens, seconds }) => {
    const used = now.tokens_sampled + now.tokens_scored + now.tokens_trained;
    return {
      tokens: tokens === null ? null : tokens - used,
      seconds: seconds === null ? null : seconds - earlier.seconds - elapsed(),
    };
  };
  const write = async (): Promise<void> => {
    written = clock();
    now.seconds = earlier.seconds + elapsed();
    await context.progress({ ...now });
  };

  return {
    now,
    spent({ sampled, scored }) {
      fresh++;
      now.tokens_sampled += sampled;
      now.tokens_scored += scored;
    },
    isSpent(budget) {
      const { tokens, seconds } = left(budget);
      return (tokens ?? 1) <= 0 || (seconds ?? 1) <= 0;
    },
    left,
    async question(record, row, selected, selection) {
      now.questions = record.row + 1;
      now.step = Math.max(now.step, now.questions);
      now.accepted = selection.accepted;
      now.rejected = { ...selection.rejected };
      const seconds = elapsed();
      now.tokens_per_second = seconds > 0 ? (now.tokens_sampled - earlier.sampled) / seconds : null;
      const left = questionsLeft(now, config);
      now.eta_seconds = fresh > 0 ? (seconds / fresh) * left : null;
      now.percent = Math.min(100, (100 * now.questions) / (now.questions + left));
      for (const { sample } of selected.verdicts) {
        if (!sample.score) continue;
        rewards.sum += sample.score.reward;
        rewards.count++;
      }
      const point = isPoint(now.questions, count, POINTS);
      const { sum, count: scored } = rewards;
      if (point) Object.assign(rewards, { sum: 0, count: 0 });
      if (now.questions <= told) return;
      if (point) {
        const all = now.accepted + Object.values(now.rejected).reduce((total, each) => total + each, 0);
        const reward = scored > 0 ? { reward: sum / scored } : {};
        await context.metrics(now.questions, { accepted: now.accepted, accepted_ratio: now.accepted / all, ...reward });
      }
      if (isPoint(now.questions, count, SAMPLES_SHOWN)) await context.event("job.sample", shown(record, row, selected));
      if (point || clock() - written >= WRITE_EVERY_MS) await write();
    },
    async tell(changes) {
      Object.assign(now, changes);
      if (clock() - written >= WRITE_EVERY_MS) await write();
    },
    async update(changes) {
      Object.assign(now, changes);
      await write();
    },
    async made(name, value) {
      now.made = { ...now.made, [name]: value };
      await write();
    },
  };
}

/** The last one, and others at even distances. */
const isPoint = (done: number, count: number, points: number): boolean =>
  done === count || done % Math.max(1, Math.floor(count / points)) === 0;

/** With a target, as many as it takes at the rate so far. */
function questionsLeft(
  { questions, total_questions: total, accepted }: DistillProgress,
  { target_rows: target }: DistillConfig,
): number {
  const left = total - questions;
  if (target === null || accepted === 0) return left;
  return Math.min(left, Math.ceil(((target - accepted) / accepted) * questions));
}

function shown({ row: number, surprise }: QuestionRecord, row: SourceRow, { verdicts, unusable }: Selected): object {
  const best = verdicts.find(({ reason }) => reason === null) ?? verdicts[0];
  return {
    row: number,
    ...(row.id === undefined ? {} : { id: row.id }),
    question: row.question,
    solution: row.solution,
    explanation: best?.sample.explanation ?? null,
    score: best ? partsOf(best.sample, surprise) : null,
    reason: unusable?.reason ?? best?.reason ?? null,
  };
}
