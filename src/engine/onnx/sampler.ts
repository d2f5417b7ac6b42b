import { fail } from "../../errors.ts";
import type { SamplingParams, TopLogprobs } from "../engine.ts";

/** How a sequence draws and reports. */
export interface DrawOptions {
  params: SamplingParams;
  /** Temperature of the reported log-probs. */
  logprobsTemperature: number;
  topLogprobs: number;
}

export interface Drawn {
  id: number;
  logprob: number;
  top?: TopLogprobs;
}

/**
 * What the head computed for one position, by what the request needs: the most likely id; the block of ids in which a plain
 * draw falls; or, for top-p, top-k and alternatives, the whole distribution.
 */
export type HeadRow =
  | { kind: "best"; id: number; prob: number }
  | { kind: "draw"; block: number; probs: Float32Array; before: number; at: number; total: number }
  | { kind: "probs"; probs: Float32Array }
  /** `logits` are divided by the head's temperature. */
  | { kind: "logits"; probs: Float32Array; logits: Float32Array };

/** Greedy choice does not depend on the temperature, so the head computes at the one that is reported. */
export function headTemperature({ params, logprobsTemperature }: DrawOptions): number {
  return params.temperature === 0 ? logprobsTemperature : params.temperature;
}

/** Probabilities alone cannot tell log-probs at another temperature, nor those too small for a float. */
export function neededRow(options: DrawOptions): HeadRow["kind"] {
  const { params, topLogprobs, logprobsTemperature } = options;
  if (topLogprobs > 0 || headTemperature(options) !== logprobsTemperature) return "logits";
  if (params.temperature === 0) return "best";
  return params.topK === 0 && params.topP >= 1 ? "draw" : "probs";
}

/**
 * Draws the next id by inverting the cumulative distribution at `u` in [0, 1). As elsewhere, top-k comes first and top-p
 * counts what top-k left as the whole. Throws `engine_failed` when the model's output is not a number.
 */
export function draw(row: HeadRow, options: DrawOptions, u: number): Drawn {
  const { params } = options;
  if (row.kind === "best") {
    if (!(row.prob > 0)) throw notNumbers();
    return { id: row.id, logprob: Math.log(row.prob) };
  }
  if (row.kind === "draw") {
    if (!(row.total > 0.5)) throw notNumbers();
    const inside = invert(row.probs, null, row.at - row.before);
    return { id: row.block * row.probs.length + inside, logprob: Math.log(row.probs[inside]!) };
  }
  const { probs } = row;
  const total = sum(probs);
  if (!(total > 0.5)) throw notNumbers();
  if (params.temperature === 0) return report(row, options, largest(probs));
  if (params.topK === 0 && params.topP >= 1) return report(row, options, invert(probs, null, u * total));
  const candidates = nucleus(probs, params, total);
  const mass = candidates.reduce((m, id) => m + probs[id]!, 0);
  return report(row, options, invert(probs, candidates, u * mass));
}

function notNumbers(): Error {
  return fail("engine_failed", "the model produced values that are not numbers; its weights or adapter overflow");
}

function sum(values: Float32Array): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i]!;
  return total;
}

function largest(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}

/** First id (of the candidates, or all) at which the running sum exceeds `target`; rounding may end on the last possible one. */
function invert(probs: Float32Array, candidates: readonly number[] | null, target: number): number {
  const count = candidates?.length ?? probs.length;
  let running = 0;
  let last = 0;
  for (let i = 0; i < count; i++) {
    const id = candidates ? candidates[i]! : i;
    const p = probs[id]!;
    if (p === 0) continue;
    running += p;
    last = id;
    if (running > target) return id;
  }
  return last;
}

/** The ids that top-k and top-p leave, most likely first. */
function nucleus(probs: Float32Array, { topK, topP }: SamplingParams, total: number): number[] {
  const ranked = topK > 0 && topK < probs.length ? mostLikely(probs, topK) : possible(probs, topP, total);
  if (topP >= 1) return ranked;
  const mass = topK > 0 ? ranked.reduce((m, id) => m + probs[id]!, 0) : total;
  let running = 0;
  const kept = ranked.findIndex((id) => {
    running += probs[id]!;
    return running >= topP * mass;
  });
  return kept < 0 ? ranked : ranked.slice(0, kept + 1);
}

/** Ids that can belong to the top-p set at all: V − 1 ids below (1 − p) / (V − 1) cannot hold more than 1 − p. Sorted. */
function possible(probs: Float32Array, topP: number, total: number): number[] {
  const least = (Math.max(0, 1 - topP) * total) / Math.max(1, probs.length - 1);
  const ids: number[] = [];
  for (let id = 0; id < probs.length; id++) if (probs[id]! >= least && probs[id]! > 0) ids.push(id);
  return ids.sort((a, b) => probs[b]! - probs[a]! || a - b);
}

/** Up to here inserting candidates one by one is faster than sorting everything. */
const INSERTION_LIMIT = 128;

/** The k largest, largest first, the lower id first among equals. */
export function mostLikely(values: Float32Array, k: number): number[] {
  return k <= INSERTION_LIMIT ? byInsertion(values, k) : byThreshold(values, Math.min(k, values.length));
}

/** Sorts the numbers alone (fast in a typed array) to learn the k-th largest, then the ids that reach it. */
function byThreshold(values: Float32Array, k: number): number[] {
  const least = values.slice().sort()[values.length - k]!;
  const ids: number[] = [];
  for (let id = 0; id < values.length; id++) if (values[id]! >= least) ids.push(id);
  return ids.sort((a, b) => values[b]! - values[a]! || a - b).slice(0, k);
}

/** O(V) plus an insertion for each new candidate. */
function byInsertion(values: Float32Array, k: number): number[] {
  const ids: number[] = [];
  for (let id = 0; id < values.length; id++) {
    const value = values[id]!;
    if (ids.length === k && value <= values[ids[k - 1]!]!) continue;
    let at = ids.length < k ? ids.length : k - 1;
    while (at > 0 && values[ids[at - 1]!]! < value) {
      ids[at] = ids[at - 1]!;
      at--;
    }
    ids[at] = id;
  }
  return ids;
}

function report(row: HeadRow & { probs: Float32Array }, options: DrawOptions, id: number): Drawn {
  if (row.kind !== "logits") return { id, logprob: Math.log(row.probs[id]!) };
  const { logits } = row;
  const { logprobsTemperature, topLogprobs } = options;
  const temperature = logprobsTemperature / headTemperature(options);
  const normaliser = logSumExp(logits, temperature);
  const at = (i: number): number => logits[i]! / temperature - normaliser;
  if (topLogprobs === 0) return { id, logprob: at(id) };
  const ids = mostLikely(logits, topLogprobs);
  return { id, logprob: at(id), top: { ids: Int32Array.from(ids), logprobs: Float32Array.from(ids, at) } };
}

function logSumExp(logits: Float32Array, temperature: number): number {
  const top = logits[largest(logits)]! / temperature;
  let total = 0;
  for (let i = 0; i < logits.length; i++) total += Math.exp(logits[i]! / temperature - top);
  return top + Math.log(total);
}
