import type { EngineModel, Precision } from "../../engine/engine.ts";
import { compareReadings, type Reading, readText } from "../../engine/quality.ts";

/** As stored and as `models inspect --json` prints it. */
export interface QualityReport {
  /** Of the text that was read. */
  tokens: number;
  /** What the others are compared with. */
  reference: Precision;
  /** From the most bytes per weight to the fewest; the reference is the first. */
  precisions: PrecisionQuality[];
}

export interface PrecisionQuality {
  precision: Precision;
  weight_bytes: number;
  /** Nats per token at temperature 1, against the reference. */
  mean_abs_logprob_difference: number;
  mean_logprob_difference: number;
  /** Share of places with the same most likely next token. */
  same_best_token: number;
}

export interface QualityJob {
  ids: Int32Array;
  /** The first is the reference. At least one. */
  precisions: readonly Precision[];
  open: (precision: Precision) => Promise<EngineModel>;
  onStart?: (precision: Precision, index: number) => void;
  signal?: AbortSignal;
}

/** Reads the text at one precision after the other: only one of them is in memory. */
export async function measureQuality(job: QualityJob): Promise<QualityReport> {
  const { ids, precisions, open, onStart, signal } = job;
  let reference: Reading | undefined;
  const measured: PrecisionQuality[] = [];
  for (const [index, precision] of precisions.entries()) {
    signal?.throwIfAborted();
    onStart?.(precision, index);
    const model = await open(precision);
    try {
      const reading = await readText(model, ids, signal);
      reference ??= reading;
      const { meanAbsolute, mean, sameBest } = compareReadings(reading, reference);
      measured.push({
        precision,
        weight_bytes: model.weights.bytes,
        mean_abs_logprob_difference: meanAbsolute,
        mean_logprob_difference: mean,
        same_best_token: sameBest,
      });
    } finally {
      await model.close();
    }
  }
  return { tokens: ids.length, reference: precisions[0]!, precisions: measured };
}
