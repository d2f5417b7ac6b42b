import { expect, test } from "vitest";
import { corrected, MAX_RATIO, mismatchMetrics } from "../../src/train/rollout-correction.ts";

// Two tokens of prompt, then three that were drawn.
const drawn = [{ promptIds: [5, 6], completion: { logprobs: [-1, -2, -3] } }];
const logprobs = [Float32Array.of(Number.NaN, -9, -1, -2 + Math.log(1.5), -3 + Math.log(8))];
const sequence = {
  ids: Int32Array.of(5, 6, 7, 8, 9),
  weights: Float32Array.of(0, 0, 1, 1, 1),
  advantages: Float32Array.of(-4, -4, -4, -4, -4),
};

test("each drawn token's advantage is weighed by its ratio, at most 2; prompts and the given sequences stay", () => {
  const [weighed] = corrected([sequence], drawn, logprobs);
  expect([...weighed!.advantages!].map((value) => Number(value.toFixed(4)))).toEqual([-4, -4, -4, -6, -4 * MAX_RATIO]);
  expect([...sequence.advantages]).toEqual([-4, -4, -4, -4, -4]);
  expect(weighed!.weights).toBe(sequence.weights);
});

test("the metrics tell the distance, the weights, and how many were truncated", () => {
  const metrics = mismatchMetrics(drawn, logprobs);
  const near = (name: string, value: number) => expect(metrics[`sampling/${name}`], name).toBeCloseTo(value, 5);
  near("sampling_logp_difference/mean", (Math.log(1.5) + Math.log(8)) / 3);
  near("sampling_logp_difference/max", Math.log(8));
  near("importance_sampling_ratio/min", 1);
  near("importance_sampling_ratio/mean", (1 + 1.5 + MAX_RATIO) / 3);
  near("importance_sampling_ratio/max", MAX_RATIO);
  near("importance_sampling_ratio/truncated", 1 / 3);
});
