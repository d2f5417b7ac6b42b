/** Log-probs at a temperature from log-probs at 1, where a server reports only its most likely ids. */

export interface Rescaled {
  /** Subtract it from log p / T. */
  logNormaliser: number;
  /** Nats by which that may be wrong either way. */
  bound: number;
}

/**
 * The least log-prob that bounds all ids not reported, from what was reported in falling order. Servers add the text's own id to
 * the k most likely: where it comes last it may be that addition, and then says nothing about the others.
 */
export function leastOf(ids: ArrayLike<number>, logprobs: ArrayLike<number>, own: number): number {
  const last = ids.length - 1;
  return ids[last] === own && last > 0 ? logprobs[last - 1]! : logprobs[last]!;
}

/**
 * Probabilities may sum to a little more than 1: log-probs that were rounded to bf16 (8 bits) are off by up to 0.016 between −4
 * and −8, where most of a flat distribution lies. What sums to more is no distribution.
 */
export const MOST_MASS = 1.02;
/** Masses are sums of float32 probabilities near 1: less than this is rounding. */
const LEAST_ROUNDING = 1e-6;

/**
 * log Σ_v p_v^(1/T) over a vocabulary of which some log-probs are known (distinct ids, the k most likely among them) and all
 * others have together what is missing from 1 and none more than the least of the k.
 *
 * With a = 1/T, tail mass m over r ids and cap c ≥ each: Σ p^a lies between m^a·r^(1−a) (spread evenly) and m·c^(a−1) (as
 * concentrated as the cap allows), for a < 1 the other way round (Jensen); both grow with m. Where nearly everything is known,
 * m is known only up to rounding (where the known sum to more than 1, by at least that much), and that r ids hold at most r·c
 * says more. The estimate is the middle of both ends in the logarithm, so the bound is half their distance.
 *
 * `error`: nats that what is known may itself be wrong. Its sum then lies within e^±aε, what it leaves within 1 − Σp·e^±ε, and
 * the cap may be higher.
 */
export function rescale(
  known: ArrayLike<number>,
  {
    least,
    vocabSize,
    temperature,
    error = 0,
  }: { least: number; vocabSize: number; temperature: number; error?: number },
): Rescaled {
  if (temperature === 1) return { logNormaliser: 0, bound: 0 };
  const a = 1 / temperature;
  let sum = 0;
  let whole = 0;
  for (let i = 0; i < known.length; i++) {
    sum += Math.exp(a * known[i]!);
    whole += Math.exp(known[i]!);
  }
  const rest = vocabSize - known.length;
  if (rest <= 0) return { logNormaliser: Math.log(sum), bound: a * error };
  const cap = Math.exp(least + error);
  const rounding = Math.max(LEAST_ROUNDING, whole * Math.exp(-error) - 1);
  const most = Math.min(Math.max(1 - whole * Math.exp(-error), 0) + rounding, rest * cap);
  const fewest = Math.min(Math.max(1 - whole * Math.exp(error) - rounding, 0), most);
  const even = (tail: number): number => tail ** a * rest ** (1 - a);
  // A cap that is nothing in floating point leaves no tail.
  const concentrated = (tail: number): number => (tail === 0 ? 0 : tail * cap ** (a - 1));
  const low = Math.log(sum * Math.exp(-a * error) + (a > 1 ? even(fewest) : concentrated(fewest)));
  const high = Math.log(sum * Math.exp(a * error) + (a > 1 ? concentrated(most) : even(most)));
  return { logNormaliser: (low + high) / 2, bound: (high - low) / 2 };
}

export interface Estimate {
  /** A reported log-prob of the same position → its estimate at the temperature. */
  at(logprob: number): number;
  bound: number;
}

/**
 * Of one position, from what a server reported of it in falling order (`top`) and the text's own token; `error`: nats that each
 * of them may be wrong.
 */
export function estimateAt(
  top: { ids: Int32Array; logprobs: Float32Array },
  own: { id: number; logprob: number },
  { vocabSize, temperature, error = 0 }: { vocabSize: number; temperature: number; error?: number },
): Estimate {
  const known = top.ids.includes(own.id) ? top.logprobs : Float32Array.of(...top.logprobs, own.logprob);
  const least = leastOf(top.ids, top.logprobs, own.id);
  const { logNormaliser, bound } = rescale(known, { least, vocabSize, temperature, error });
  return { at: (logprob) => logprob / temperature - logNormaliser, bound: bound + error / temperature };
}
