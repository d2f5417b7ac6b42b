/** Supervised fine-tuning: the warm-up of a teacher, or a student on explanations. */
import type { TrainingSequence } from "../engine/engine.ts";
import { type Hyperparameters, rowsPerStep } from "./config.ts";
import type { Policy } from "./policy.ts";
import { atStep, type Clock, isDue, optimStepOf, type RunReport, type RunState, type Stopped } from "./run.ts";
import { rowsOfStep } from "./seeds.ts";

export interface SftRun {
  policy: Pick<Policy, "training" | "optimStep">;
  hyperparameters: Hyperparameters;
  totalSteps: number;
  seed: number;
  /** Number of training rows, and one of them as it is learnt from. */
  rows: number;
  example(row: number): Promise<TrainingSequence>;
  /** Mean loss on rows that are not trained on; null: none are held out. */
  heldOut: readonly TrainingSequence[];
  report: RunReport;
  clock: Clock;
  signal: AbortSignal;
}

/** Goes on from `state` and leaves in it where it stopped; null: all steps are done. */
export async function sft(run: SftRun, state: RunState): Promise<Stopped | null> {
  const { policy, hyperparameters: h, totalSteps, report, clock, signal } = run;
  const config = { loss: "cross_entropy" } as const;
  while (state.step < totalSteps) {
    const started = clock.now();
    const chosen = rowsOfStep(state.step, rowsPerStep(h), run.rows, run.seed);
    const sequences = await Promise.all(chosen.map(run.example));
    const { loss } = await atStep(state.step, chosen, policy.training.forwardBackward({ sequences, config, signal }));
    const optim = optimStepOf(h, state.step, totalSteps);
    const { gradNorm } = await policy.optimStep(optim);
    state.step++;
    state.tokensTrained += sequences.reduce((sum, { ids }) => sum + ids.length, 0);
    const metrics: Record<string, number> = {
      loss,
      grad_norm: gradNorm,
      learning_rate: optim.learningRate,
      num_tokens: state.tokensTrained,
      epoch: (state.step * rowsPerStep(h)) / run.rows,
    };
    let best = false;
    if (run.heldOut.length > 0 && isDue(state.step, h.eval_steps)) {
      const held = await policy.training.forward({ sequences: run.heldOut, config, signal });
      metrics.eval_loss = held.loss;
      best = better(state, -held.loss);
    }
    const ms = clock.now() - started;
    state.seconds += ms / 1000;
    metrics.step_time = ms / 1000;
    await report.metrics(state.step, metrics);
    await report.progress(state, totalSteps);
    const last = state.step === totalSteps;
    const stopped = report.stop(state) ?? outOfPatience(state, h);
    if (last || best || stopped || isDue(state.step, h.save_steps)) await report.checkpoint(state, { best, last });
    if (stopped && !last) return stopped;
  }
  return null;
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

export function outOfPatience(state: RunState, { early_stopping_patience: patience }: Hyperparameters): Stopped | null {
  return patience > 0 && state.worse >= patience ? "early" : null;
}
