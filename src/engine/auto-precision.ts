/** What the precision "auto" stands for: of the same checkpoint, budget and device always the same. */
import type { Checkpoint } from "../model/checkpoint.ts";
import { leastAutoBits } from "../model/family.ts";
import type { Precision } from "./engine.ts";
import { estimateBytes } from "./placement.ts";

export interface PrecisionRoom {
  /** Bytes that loaded models may take together. */
  budgetBytes: number;
  /** `cpu`, `cuda:0`, `webgpu`. */
  device: string;
}

/**
 * fp32 gives the numbers of the reference implementations, but a token reads every weight once: 2.4 GB of them pass
 * through a laptop's memory some ten times a second, which is just ahead of a reader. Larger models fall behind.
 */
const MOST_FP32_PARAMETERS = 600e6;
/** Teacher, student and what they cache share the budget; in fp32 keys and values are not much smaller than the weights. */
const FP32_SHARE = 1 / 3;
/** Leaves room for a second model of this size. */
const QUANTISED_SHARE = 1 / 2;

/** Types of GGUF files whose numbers a precision keeps: nothing is rounded twice. */
const KEPT_BY: Readonly<Record<string, Precision>> = { Q8_0: "q8_0", Q4_0: "q4_0" };

/**
 * Other 4-bit types. Rounding them to 4 bits again costs several times what 8 bits do, and q8 is no slower than q4_0
 * (docs/engine.md), so they get 8 bits like everything else; where there is no room for that, blocks of 32 like their own
 * cost less than blocks of 128 (SmolLM2-135M, Q4_1: 0.57 against 0.77 nats per token; q8 0.10).
 */
const NEAR_Q4_0: ReadonlySet<string> = new Set(["Q4_1", "Q4_K"]);

export function choosePrecision(checkpoint: Checkpoint, { budgetBytes, device }: PrecisionRoom): Precision {
  // Quantised kernels are packed for the CPU; the engine refuses others elsewhere.
  if (device !== "cpu") return "fp32";
  const fits = (precision: Precision, share: number): boolean =>
    estimateBytes(checkpoint, { precision }) <= budgetBytes * share;
  if (checkpoint.parameters <= MOST_FP32_PARAMETERS && fits("fp32", FP32_SHARE)) return "fp32";
  const type = checkpoint.ggufType ?? "";
  const kept = KEPT_BY[type];
  if (kept && fits(kept, QUANTISED_SHARE)) return kept;
  if (fits("q8", QUANTISED_SHARE)) return "q8";
  // From here on the smallest that may be: if even that does not fit, loading says so with numbers.
  if (leastAutoBits(checkpoint.config.family) === 8) return kept === "q4_0" ? kept : "q8";
  return NEAR_Q4_0.has(type) && fits("q4_0", QUANTISED_SHARE) ? "q4_0" : "q4";
}
