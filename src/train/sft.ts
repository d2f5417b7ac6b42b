/** Supervised fine-tuning: the warm-up of a teacher, or a student on explanations. */
import type { TrainingSequence } from "../engine/engine.ts";
import { type Hyperparameters, rowsPerStep } from "./config.ts";
import type { Policy } from "./policy.ts";
import {
  atStep,
  better,
  type Clock,
  endStep,
  finiteStep,
  isDue,
  optimStepOf,
  type RunReport,
  type RunState,
  type Stopped,
} from "./run.ts";
import { rowsOfStep } from "./seeds.ts";

export interface SftRun {
  policy: Pick<Policy, "training" | "optimStep">;
  hyperparameters: Hyperparameters;
  totalSteps: number;
  seed: number;
  /** Number of training rows, and one of them as it is learnt from. */
  rows: number;
  example(row: number): Promise<TrainingSequence>;
  /** Which row of the dataset it is, counted from 0: for errors. */
  numberOf(row: number): number;
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
    const named = chosen.map(run.numberOf);
    const { loss } = await atStep(state.step, named, policy.training.forwardBackward({ sequences, config, signal }));
    const optim = optimStepOf(h, state.step, totalSteps);
    const { gradNorm } = await atStep(state.step, named, finiteStep(policy, optim));
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
    const stopped = await endStep(run, state, best);
    if (stopped) return stopped;
  }
  return null;
}
