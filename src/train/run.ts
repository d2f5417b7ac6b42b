/** What the loops share: where a run stands, what it reports to, and when it stops. */

import type { OptimStep } from "../engine/engine.ts";
import { fail, PreceptorError } from "../errors.ts";
import type { Hyperparameters } from "./config.ts";
import type { Policy } from "./policy.ts";
import { learningRateAt } from "./schedule.ts";

/** Why a loop ended before its last step. */
export type Stopped = "pause" | "cancel" | "budget" | "early";

/** Where a run stands between two steps: what a checkpoint keeps beside weights and optimizer. */
export interface RunState {
  /** Steps done, of the phase. */
  step: number;
  phase: "warmup" | "main";
  tokensTrained: number;
  tokensSampled: number;
  tokensScored: number;
  /** Of all sessions together. */
  seconds: number;
  best: { step: number; value: number } | null;
  /** Evaluations since the best one. */
  worse: number;
}

export const FRESH: RunState = {
  step: 0,
  phase: "main",
  tokensTrained: 0,
  tokensSampled: 0,
  tokensScored: 0,
  seconds: 0,
  best: null,
  worse: 0,
};

/** What a loop tells while it runs. Everything is awaited: a run never gets ahead of its record. */
export interface RunReport {
  metrics(step: number, values: Record<string, number>): Promise<void>;
  sample(sample: SampleReport): Promise<void>;
  progress(state: RunState): Promise<void>;
  /** Weights, optimizer and state, durable when it resolves. */
  checkpoint(state: RunState, how: { best: boolean; last: boolean }): Promise<void>;
  /** Looked at between steps. Throws where the run is no longer ours. */
  stop(state: RunState): Stopped | null;
}

export interface SampleReport {
  step: number;
  question: string;
  solution: string;
  completion: string;
  reward: number;
  parts: Record<string, number>;
  format_ok: boolean;
}

export interface Clock {
  /** Milliseconds that never jump. */
  now(): number;
}

/** AdamW at one step of a run, counted from 0. Step k is taken at the rate of k + 1, so that a warm-up does not begin with 0. */
export function optimStepOf(h: Hyperparameters, step: number, total: number) {
  const schedule = {
    name: h.lr_scheduler_type,
    peak: h.learning_rate,
    warmupSteps: Math.ceil(h.warmup_ratio * total),
    totalSteps: total + 1,
  };
  return {
    learningRate: learningRateAt(schedule, step + 1),
    betas: [h.adam_beta1, h.adam_beta2] as [number, number],
    eps: h.adam_epsilon,
    weightDecay: h.weight_decay,
    clip: h.max_grad_norm > 0 ? h.max_grad_norm : null,
  };
}

export const isDue = (step: number, every: number): boolean => every > 0 && step % every === 0;

export const mean = (values: readonly number[]): number =>
  values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length;

/** What ends every step: progress, a checkpoint where one is due, and whether to stop before the last step. */
export async function endStep(
  {
    report,
    totalSteps,
    hyperparameters: h,
  }: { report: RunReport; totalSteps: number; hyperparameters: Hyperparameters },
  state: RunState,
  best: boolean,
): Promise<Stopped | null> {
  await report.progress(state);
  const last = state.step === totalSteps;
  const stopped = report.stop(state) ?? outOfPatience(state, h);
  if (last || best || stopped || isDue(state.step, h.save_steps)) await report.checkpoint(state, { best, last });
  return last ? null : stopped;
}

/** Notes an evaluation; true: the best so far. */
export function better(state: RunState, value: number): boolean {
  if (state.best !== null && value <= state.best.value) {
    state.worse++;
    return false;
  }
  state.best = { step: state.step, value };
  state.worse = 0;
  return true;
}

function outOfPatience(state: RunState, { early_stopping_patience: patience }: Hyperparameters): Stopped | null {
  return patience > 0 && state.worse >= patience ? "early" : null;
}

/** A step whose gradients are no numbers would make weights that are none: it must not become a checkpoint. */
export async function finiteStep(
  policy: Pick<Policy, "optimStep">,
  options: OptimStep,
): Promise<{ step: number; gradNorm: number }> {
  const done = await policy.optimStep(options);
  if (Number.isFinite(done.gradNorm)) return done;
  throw fail("loss_not_finite", "the loss is a number, but its gradients are not; lower the learning rate");
}

/**
 * A loss that is no number is told with the step and the rows of the dataset that made it. `step` and `rows` count from 0, what
 * is told from 1.
 */
export async function atStep<T>(step: number, rows: readonly number[], work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof PreceptorError) || error.code !== "loss_not_finite") throw error;
    const named = rows.slice(0, MAX_ROWS_NAMED).map((row) => row + 1);
    const more = rows.length > named.length ? ", …" : "";
    throw fail(
      "loss_not_finite",
      `step ${step + 1}, rows ${named.join(", ")}${more} of the dataset: ${error.message}. Checkpoints of steps before are kept: fork one with other hyperparameters`,
      {
        cause: error,
      },
    );
  }
}

const MAX_ROWS_NAMED = 16;
