export const SCHEDULES = ["constant", "constant_with_warmup", "linear", "cosine"] as const;
export type ScheduleName = (typeof SCHEDULES)[number];

export interface Schedule {
  name: ScheduleName;
  peak: number;
  /** Steps over which the rate rises from 0 to its peak. */
  warmupSteps: number;
  totalSteps: number;
}

/** Learning rate of a step, counted from 0, as Transformers' schedulers give it. */
export function learningRateAt({ name, peak, warmupSteps, totalSteps }: Schedule, step: number): number {
  if (name !== "constant" && step < warmupSteps) return (peak * step) / warmupSteps;
  if (name === "constant" || name === "constant_with_warmup") return peak;
  const progress = Math.min(1, (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps));
  return peak * (name === "linear" ? 1 - progress : (1 + Math.cos(Math.PI * progress)) / 2);
}
