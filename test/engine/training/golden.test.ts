import { afterEach, beforeAll, describe, expect, test } from "vitest";
import type { LossConfig } from "../../../src/engine/engine.ts";
import type { Trainer } from "../../../src/engine/onnx/training/trainer.ts";
import { FAMILIES, farthest, LOGPROB_TOLERANCE, readExpected } from "../fixture.ts";
import { openTrainer, readTrain, sequencesOf, type TrainGolden } from "./fixture.ts";

/** What PyTorch and PEFT computed. Tolerances of test/golden/README.md. */
const GRADIENT_TOLERANCE = 1e-4;
const LOSS_TOLERANCE = 1e-4;
const LOSS_AFTER_STEPS = 1e-3;
const WEIGHT_TOLERANCE = 1e-3;
const WEIGHT_SHARE = 0.999;

describe.each(FAMILIES)("%s", (name) => {
  let golden: TrainGolden;
  let trainer: Trainer | undefined;
  beforeAll(async () => {
    golden = await readTrain(name);
  });
  afterEach(() => trainer?.dispose());

  /** Gradients against the stored ones, relative to the largest entry of each tensor. */
  async function worstGradient(prefix: string): Promise<number> {
    let worst = 0;
    for (const parameter of trainer!.parameters.list) {
      const expected = await readExpected(name, `${prefix}.${parameter.name}`);
      const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      worst = Math.max(worst, farthest(parameter.gradient, expected) / (largest || 1));
    }
    return worst;
  }

  test.each(["ce", "grpo", "importance_sampling", "ppo"] as const)("LoRA: loss and gradients of %s", async (kind) => {
    trainer = await openTrainer(name, "lora");
    const { temperature, beta, ppo_clip: clip } = golden;
    const configs: Record<typeof kind, LossConfig> = {
      ce: { loss: "cross_entropy" },
      grpo: { loss: "grpo", temperature, beta },
      importance_sampling: { loss: "importance_sampling", temperature },
      ppo: { loss: "ppo", temperature, clipLow: clip, clipHigh: clip },
    };
    const { loss, logprobs } = await trainer.forwardBackward(sequencesOf(golden), {
      ...configs[kind],
      everyToken: true,
    });
    expect(Math.abs(loss - golden[`${kind}_loss`])).toBeLessThan(LOSS_TOLERANCE);
    expect(await worstGradient(`grad.${kind}`)).toBeLessThan(GRADIENT_TOLERANCE);
    if (kind !== "ce") return;
    for (const [i, expected] of golden.lora_logprobs_T1.entries()) {
      expect(farthest(logprobs[i]!.subarray(1), expected)).toBeLessThan(LOGPROB_TOLERANCE);
    }
  });

  test("every parameter: loss and gradients of cross-entropy", async () => {
    trainer = await openTrainer(name, "full");
    const { loss } = await trainer.forwardBackward(sequencesOf(golden), { loss: "cross_entropy" });
    expect(Math.abs(loss - golden.full_ce_loss)).toBeLessThan(LOSS_TOLERANCE);
    expect(await worstGradient("grad.full")).toBeLessThan(GRADIENT_TOLERANCE);
  });

  test.each(["lora", "widened"] as const)("three AdamW steps, frozen weights: %s", async (how) => {
    trainer = await openTrainer(name, how);
    const { lr, betas, eps, weight_decay: weightDecay, clip, losses, grad_norms: norms } = golden.adamw;
    for (const [step, norm] of norms.entries()) {
      const { loss } = await trainer.forwardBackward(sequencesOf(golden), { loss: "cross_entropy" });
      expect(Math.abs(loss - losses[step]!)).toBeLessThan(step === 0 ? LOSS_TOLERANCE : LOSS_AFTER_STEPS);
      const found = trainer.optimStep({ learningRate: lr, betas, eps, weightDecay, clip });
      expect(Math.abs(found - norm)).toBeLessThan(LOSS_AFTER_STEPS);
    }
    const { loss } = await trainer.forward(sequencesOf(golden), { loss: "cross_entropy" });
    expect(Math.abs(loss - losses.at(-1)!)).toBeLessThan(LOSS_AFTER_STEPS);
    for (const parameter of trainer.parameters.list) {
      const expected = await readExpected(name, `after.${parameter.name}`);
      const far = parameter.values.filter((value, i) => Math.abs(value - expected[i]!) > WEIGHT_TOLERANCE);
      expect(far.length).toBeLessThanOrEqual((1 - WEIGHT_SHARE) * expected.length);
    }
  });
});
