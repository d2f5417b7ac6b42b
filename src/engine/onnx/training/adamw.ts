/** AdamW with decoupled weight decay (arXiv 1711.05101), rounded where PyTorch's rounds: state and weights in float32. */
import type { OptimStep } from "../../engine.ts";
import type { Parameter } from "./parameters.ts";

/** Keeps a division by the norm finite, as `torch.nn.utils.clip_grad_norm_` does. */
const CLIP_EPSILON = 1e-6;

/** Norm of all gradients together. */
export function gradientNorm(parameters: readonly Parameter[]): number {
  let sum = 0;
  for (const { gradient } of parameters) {
    for (let i = 0; i < gradient.length; i++) sum += gradient[i]! * gradient[i]!;
  }
  return Math.sqrt(sum);
}

/** One update with the gradients as they stand, which are zero afterwards. `step` counts from 1. Returns the norm before clipping. */
export function adamw(parameters: readonly Parameter[], options: OptimStep, step: number): number {
  const { learningRate, betas, eps, weightDecay, clip } = options;
  const norm = gradientNorm(parameters);
  const scale = clip === null ? 1 : Math.min(1, clip / (norm + CLIP_EPSILON));
  const [beta1, beta2] = betas;
  const stepSize = learningRate / (1 - beta1 ** step);
  const correction = 1 / Math.sqrt(1 - beta2 ** step);
  const kept = 1 - learningRate * weightDecay;
  for (const { values, gradient, mean, square } of parameters) {
    for (let i = 0; i < values.length; i++) {
      const g = gradient[i]! * scale;
      const m = beta1 * mean[i]! + (1 - beta1) * g;
      const v = beta2 * square[i]! + (1 - beta2) * g * g;
      mean[i] = m;
      square[i] = v;
      values[i] = values[i]! * kept - (stepSize * m) / (Math.sqrt(v) * correction + eps);
    }
    gradient.fill(0);
  }
  return norm;
}
