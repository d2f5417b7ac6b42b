/** What a precision costs: how far the log-probs of one text move from those of a reference. Token ids only. */
import type { EngineModel } from "./engine.ts";

/** A model's reading of a text of T tokens, at temperature 1. */
export interface Reading {
  /** (T − 1) log p(ids[i] | ids[< i]) for i = 1 … T − 1 */
  logprobs: Float32Array;
  /** (T − 1) the most likely id in each of these places. */
  bestIds: Int32Array;
}

/** Of one reading from another of the same text. */
export interface ReadingDifference {
  /** Mean of |Δ log-prob|, nats per token: how far single numbers are off. */
  meanAbsolute: number;
  /** Mean of Δ log-prob: below 0 the text has become less likely; what averages over many tokens are off by. */
  mean: number;
  /** Share of places with the same most likely token, 0 … 1. */
  sameBest: number;
}

/** `ids`: at least two. Errors: those of `logprobs`. */
export async function readText(model: EngineModel, ids: Int32Array, signal?: AbortSignal): Promise<Reading> {
  const [result] = await model.logprobs({ sequences: [{ ids }], temperature: 1, topK: 1, signal });
  return { logprobs: result!.logprobs, bestIds: result!.topIds! };
}

export function compareReadings(reading: Reading, reference: Reading): ReadingDifference {
  const places = reference.logprobs.length;
  if (places === 0 || reading.logprobs.length !== places) throw new Error("readings of different texts");
  let absolute = 0;
  let sum = 0;
  let same = 0;
  for (let i = 0; i < places; i++) {
    const difference = reading.logprobs[i]! - reference.logprobs[i]!;
    absolute += Math.abs(difference);
    sum += difference;
    if (reading.bestIds[i] === reference.bestIds[i]) same++;
  }
  return { meanAbsolute: absolute / places, mean: sum / places, sameBest: same / places };
}
