/**
 * The miniature's base model, from scratch: what teacher and student both grow from. Easy documents first, until single
 * operations are learnt, then the mixture (with the mixture alone nothing is learnt).
 */
import type { TrainingModel } from "../../src/engine/engine.ts";
import type { PromptEncoder } from "../../src/train/rows.ts";
import { learningRateAt } from "../../src/train/schedule.ts";
import { studentRow } from "./corpus.ts";
import { generateTasks, type Task } from "./tasks.ts";

export interface PretrainOptions {
  seed: number;
  /** Updates on chains of one or two clean steps, then on the mixture. */
  easySteps: number;
  mixedSteps: number;
  batch: number;
  onStep?: (step: number, loss: number) => void;
}

export const PRETRAIN: PretrainOptions = { seed: 1, easySteps: 200, mixedSteps: 500, batch: 128 };

const PEAK_RATE = 2e-3;
const WARMUP_STEPS = 20;
/** Documents of one or two clean steps that stay in the mixture. */
const EASY_SHARE = 0.33;
const BETAS = [0.9, 0.95] as const;

export async function pretrain(model: TrainingModel, text: PromptEncoder, options: PretrainOptions): Promise<void> {
  const { seed, easySteps, mixedSteps, batch } = options;
  const totalSteps = easySteps + mixedSteps;
  const easy = generateTasks({ seed, difficulty: [1, 2], easyShare: 1 });
  const mixed = generateTasks({ seed: seed + 1, difficulty: [3, 7], easyShare: EASY_SHARE });
  for (let step = 0; step < totalSteps; step++) {
    const source: Generator<Task, never> = step < easySteps ? easy : mixed;
    const sequences = await Promise.all(Array.from({ length: batch }, () => studentRow(text, source.next().value)));
    const { loss } = await model.forwardBackward({ sequences, config: { loss: "cross_entropy" } });
    const rate = { name: "linear", peak: PEAK_RATE, warmupSteps: WARMUP_STEPS, totalSteps } as const;
    await model.optimStep({
      learningRate: learningRateAt(rate, step + 1),
      betas: [BETAS[0], BETAS[1]],
      eps: 1e-8,
      weightDecay: 0.01,
      clip: 1,
    });
    options.onStep?.(step, loss);
  }
}
