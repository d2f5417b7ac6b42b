import { fail } from "../../errors.ts";
import type { HeldModel } from "../models/registry.ts";
import type { StopRules } from "./choice-text.ts";
import type { Job } from "./generate.ts";
import {
  MAX_CHOICES,
  MAX_REPORTED_LOGPROBS,
  MAX_STOP_CHARS,
  MAX_STOPS,
  MIN_TEMPERATURE,
  WHOLE_VOCABULARY,
} from "./limits.ts";
import type { Alternatives } from "./prompt-logprobs.ts";
import { checkIds } from "./prompts.ts";
import type { SamplingFields } from "./schemas-sampling.ts";

/** Everything about a generation but its prompt, every default filled in. */
export interface Spec {
  n: number;
  /** Null: as many as the context holds. */
  maxTokens: number | null;
  temperature: number;
  topP: number;
  /** 0: all. */
  topK: number;
  seed: number;
  rules: StopRules;
  /** Alternatives per sampled token; null: no log-probs in the answer. */
  logprobs: number | null;
  /** Alternatives per prompt token; null: no `prompt_logprobs`. */
  promptLogprobs: Alternatives | null;
  /** First prompt token that `prompt_logprobs` speaks of, ≥ 1. */
  promptFrom: number;
  promptTemperature: number;
  returnTokenIds: boolean;
  /** Log-probs name tokens by their ids. */
  namesAsTokenIds: boolean;
  /** The prompt is part of the answer. */
  echo: boolean;
}

export interface SpecDefaults {
  maxTokens: number | null;
  logprobs: number | null;
  echo: boolean;
  namesAsTokenIds: boolean;
  /** Unsigned 32-bit; used when the request names no seed. */
  randomSeed: () => number;
}

/** Fills in the defaults and checks what a schema cannot. Throws `invalid_value`, `invalid_token_ids`. */
export function resolveSpec(body: SamplingFields, held: HeldModel, defaults: SpecDefaults): Spec {
  const temperature = body.temperature ?? 1;
  if (temperature > 0 && temperature < MIN_TEMPERATURE) {
    throw fail("invalid_value", `temperature is ${temperature}; use 0 (greedy) or at least ${MIN_TEMPERATURE}`, {
      param: "temperature",
    });
  }
  return {
    n: body.n ?? 1,
    maxTokens: defaults.maxTokens,
    temperature,
    topP: body.top_p ?? 1,
    topK: Math.max(body.top_k ?? 0, 0),
    seed: body.seed ?? defaults.randomSeed(),
    rules: stopRules(body, held),
    logprobs: defaults.logprobs,
    promptLogprobs: body.prompt_logprobs === WHOLE_VOCABULARY ? "all" : (body.prompt_logprobs ?? null),
    promptFrom: body.prompt_logprobs_from ?? 1,
    promptTemperature: body.prompt_logprobs_temperature ?? 1,
    returnTokenIds: body.return_token_ids ?? false,
    namesAsTokenIds: defaults.namesAsTokenIds,
    echo: defaults.echo,
  };
}

function stopRules(body: SamplingFields, held: HeldModel): StopRules {
  const stops = typeof body.stop === "string" ? [body.stop] : (body.stop ?? []);
  if (stops.length > MAX_STOPS) {
    throw fail("invalid_value", `${stops.length} stop strings; at most ${MAX_STOPS}`, { param: "stop" });
  }
  stops.forEach((stop, i) => {
    const param = typeof body.stop === "string" ? "stop" : `stop.${i}`;
    if (stop === "") throw fail("invalid_value", "a stop string must not be empty", { param });
    // Half of a surrogate pair would cut a character in two.
    if (/\p{Surrogate}/u.test(stop)) throw fail("invalid_value", "a stop string must be valid Unicode", { param });
    if (stop.length > MAX_STOP_CHARS) {
      throw fail("invalid_value", `a stop string has ${stop.length} characters; at most ${MAX_STOP_CHARS}`, { param });
    }
  });
  const callerStopIds = new Set(checkIds(body.stop_token_ids ?? [], held.engine.vocabSize, "stop_token_ids"));
  return {
    stops,
    stopIds: new Set([...(body.ignore_eos ? [] : held.eosIds), ...callerStopIds]),
    callerStopIds,
    includeStop: body.include_stop_str_in_output ?? false,
    skipSpecial: body.skip_special_tokens ?? true,
  };
}

/** Limits on the whole answer. Throws `invalid_value`. */
export function checkSize({ spec, prompts, held }: Pick<Job, "spec" | "prompts" | "held">, stream: boolean): void {
  const choices = prompts.length * spec.n;
  if (choices > MAX_CHOICES) {
    throw fail("invalid_value", `${choices} choices (prompts × n) in one request; at most ${MAX_CHOICES}`, {
      param: "n",
    });
  }
  let entries = 0;
  for (const prompt of prompts) {
    const length = prompt.ids.length;
    const room = held.contextLength - length;
    if (spec.promptLogprobs !== null) {
      const each = spec.promptLogprobs === "all" ? held.engine.vocabSize : spec.promptLogprobs + 1;
      entries += Math.max(0, length - spec.promptFrom) * spec.n * each;
    }
    if (spec.logprobs !== null && spec.echo) entries += length * spec.n * (spec.logprobs + 1);
    // A stream keeps nothing of what it has sent.
    if (spec.logprobs !== null && !stream)
      entries += spec.n * Math.min(spec.maxTokens ?? room, room) * (spec.logprobs + 1);
  }
  if (entries > MAX_REPORTED_LOGPROBS) {
    throw fail(
      "invalid_value",
      `this request asks for up to ${entries} log-probs in one answer; at most ${MAX_REPORTED_LOGPROBS}. ` +
        "Ask for fewer prompts, choices, tokens (prompt_logprobs_from) or alternatives, or stream",
      { param: spec.promptLogprobs === null ? "logprobs" : "prompt_logprobs" },
    );
  }
}

/** OpenAI refuses the options of a stream where there is none. */
export function checkStreamOptions(body: Pick<SamplingFields, "stream" | "stream_options">): void {
  if (body.stream_options && !body.stream) {
    throw fail("invalid_value", "stream_options needs stream: true", { param: "stream_options" });
  }
}
