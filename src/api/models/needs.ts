import type { Capabilities } from "../../engine/engine.ts";

/** What a request needs a model to be able to do. */
export interface Needs {
  sample?: boolean;
  logprobs?: boolean;
  topk?: boolean;
  at_ids?: boolean;
  distributions?: boolean;
  /** Log-probs at this temperature without an error bound. */
  exact_temperature?: number;
}

const IN_WORDS: Readonly<Record<Exclude<keyof Needs, "exact_temperature">, string>> = {
  sample: "sample with known token ids",
  logprobs: "report log-probs of given texts",
  topk: "report the most likely tokens",
  at_ids: "report log-probs at chosen tokens",
  distributions: "report whole distributions",
};

/** The first thing a model cannot do, in words; null: it can do all. */
export function lacking(able: Capabilities, { exact_temperature: temperature, ...needs }: Needs): string | null {
  for (const [need, wanted] of Object.entries(needs) as [keyof typeof IN_WORDS, boolean][]) {
    if (wanted && !able[need]) return IN_WORDS[need];
  }
  if (temperature === undefined || isExactAt(able, temperature)) return null;
  return `report log-probs at temperature ${temperature} exactly`;
}

function isExactAt({ exact_temperatures: exact }: Capabilities, temperature: number): boolean {
  return exact === null || exact.includes(temperature);
}
