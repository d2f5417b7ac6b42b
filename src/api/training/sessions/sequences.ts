/** The data of a loss as the engine takes them, and its answer as the API shows it. */
import type { LossConfig, TrainingResult, TrainingSequence } from "../../../engine/engine.ts";
import { fail } from "../../../errors.ts";
import { DEFAULT_TEMPERATURE } from "../../../rlt/reward.ts";
import { checkIds } from "../../openai/prompts.ts";
import type { Datum, LossBody, LossResult } from "./schemas.ts";

/** TRL's default and the paper's. */
const DEFAULT_BETA = 0.04;

export interface Bounds {
  vocabSize: number;
  contextLength: number;
}

export type FullConfig = LossResult["config"];

/** Every default filled in. */
export function configOf({ loss, config, data }: LossBody): FullConfig {
  const referred = loss === "grpo" || data.some(({ ref_logprobs: reference }) => reference !== undefined);
  return {
    temperature: config.temperature ?? (loss === "cross_entropy" ? 1 : DEFAULT_TEMPERATURE),
    beta: loss === "cross_entropy" ? 0 : (config.beta ?? (referred ? DEFAULT_BETA : 0)),
    clip_low: config.clip_low,
    clip_high: config.clip_high,
  };
}

export function engineConfig({ loss }: LossBody, config: FullConfig): LossConfig {
  const { temperature, beta, clip_low: clipLow, clip_high: clipHigh } = config;
  return { loss, temperature, beta, clipLow, clipHigh, everyToken: true };
}

/** Throws `invalid_value`, `invalid_token_ids`, `context_length_exceeded`, `empty_loss`. */
export function sequencesOf(body: LossBody, config: FullConfig, bounds: Bounds): TrainingSequence[] {
  const sequences = body.data.map((datum, i) => sequenceOf(datum, `data.${i}`, needsOf(body, config), bounds));
  if (sequences.every(({ weights }) => weights.every((weight) => weight === 0))) {
    throw fail("empty_loss", "no token has a weight above 0, so there is nothing to learn from", { param: "data" });
  }
  return sequences;
}

/** Fields that a loss cannot do without, and why. */
function needsOf({ loss }: LossBody, { beta }: FullConfig): Partial<Record<keyof Datum, string>> {
  if (loss === "cross_entropy") return {};
  return {
    advantages: `${loss} weighs every token by its advantage`,
    ...(loss === "grpo" ? {} : { old_logprobs: `${loss} compares with the log-probs of the policy that sampled` }),
    ...(beta > 0 ? { ref_logprobs: `beta is ${beta}; send config.beta = 0 to leave the KL term out` } : {}),
  };
}

function sequenceOf(
  datum: Datum,
  at: string,
  needs: Partial<Record<keyof Datum, string>>,
  bounds: Bounds,
): TrainingSequence {
  const ids = checkTokens(datum.tokens, `${at}.tokens`, bounds);
  for (const [field, reason] of Object.entries(needs)) {
    if (datum[field as keyof Datum] !== undefined) continue;
    throw fail("invalid_value", `${at}.${field} is required: ${reason}`, { param: `${at}.${field}` });
  }
  const column = (field: "weights" | "advantages" | "ref_logprobs" | "old_logprobs"): Float32Array | undefined => {
    const values = datum[field];
    if (values === undefined) return undefined;
    if (typeof values === "number") return new Float32Array(ids.length).fill(values);
    if (values.length === ids.length) return Float32Array.from(values, (value) => value ?? 0);
    throw fail("invalid_value", `${at}.${field} has ${values.length} numbers for ${ids.length} tokens`, {
      param: `${at}.${field}`,
    });
  };
  const weights = column("weights") ?? Float32Array.from(ids, (_, t) => (t === 0 ? 0 : 1));
  if (weights[0] !== 0) {
    throw fail("invalid_value", `${at}.weights.0 must be 0: nothing predicts the first token`, {
      param: `${at}.weights.0`,
    });
  }
  const [advantages, reference, old] = [column("advantages"), column("ref_logprobs"), column("old_logprobs")];
  return {
    ids,
    weights,
    ...(advantages ? { advantages } : {}),
    ...(reference ? { reference } : {}),
    ...(old ? { old } : {}),
  };
}

/** Throws `invalid_token_ids`, `context_length_exceeded`. */
export function checkTokens(
  tokens: readonly number[],
  param: string,
  { vocabSize, contextLength }: Bounds,
): Int32Array {
  if (tokens.length > contextLength) {
    throw fail(
      "context_length_exceeded",
      `${param} has ${tokens.length} tokens and this session's context is ${contextLength}`,
      { param },
    );
  }
  return checkIds(tokens, vocabSize, param);
}

/** Null where there is no number: of the first token. */
export function toLogprobs({ logprobs }: TrainingResult): (number | null)[][] {
  return logprobs.map((values) => Array.from(values, (value) => (Number.isNaN(value) ? null : value)));
}

/** Means over the tokens with weight > 0, all sequences together. */
export function metricsOf(
  loss: LossBody["loss"],
  sequences: readonly TrainingSequence[],
  { logprobs }: TrainingResult,
  { clip_low: clipLow, clip_high: clipHigh }: FullConfig,
): LossResult["metrics"] {
  const sums = { tokens: 0, loss_tokens: 0, weight: 0, logprob: 0, kl: 0, ratio: 0, clipped: 0 };
  for (const [i, { ids, weights, advantages, reference, old }] of sequences.entries()) {
    sums.tokens += ids.length;
    for (let t = 1; t < ids.length; t++) {
      if (weights[t] === 0) continue;
      const logprob = logprobs[i]![t]!;
      sums.loss_tokens++;
      sums.weight += weights[t]!;
      sums.logprob += logprob;
      if (reference) sums.kl += k3(reference[t]! - logprob);
      if (!old) continue;
      const ratio = Math.exp(logprob - old[t]!);
      sums.ratio += ratio;
      const gains = (advantages?.[t] ?? 0) > 0;
      if (gains ? ratio > 1 + clipHigh : ratio < 1 - clipLow) sums.clipped++;
    }
  }
  const count = sums.loss_tokens;
  const mean = (sum: number): number => Math.min(sum / count, Number.MAX_VALUE);
  const every = (field: "reference" | "old"): boolean => sequences.every((sequence) => sequence[field] !== undefined);
  return {
    sequences: sequences.length,
    tokens: sums.tokens,
    loss_tokens: count,
    weight: sums.weight,
    logprob_mean: mean(sums.logprob),
    ...(every("reference") ? { kl: mean(sums.kl) } : {}),
    ...(every("old") ? { ratio_mean: mean(sums.ratio) } : {}),
    ...(every("old") && loss === "ppo" ? { clip_fraction: mean(sums.clipped) } : {}),
  };
}

/** exp(d) − d − 1 with d = ref − lp: unbiased, never negative (http://joschu.net/blog/kl-approx.html). */
const k3 = (difference: number): number => Math.exp(difference) - difference - 1;
