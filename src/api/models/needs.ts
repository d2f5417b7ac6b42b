import type { Capabilities } from "../../engine/engine.ts";

/** What a request needs a model to be able to do. */
export interface Needs {
  sample?: boolean;
  logprobs?: boolean;
  topk?: boolean;
  at_ids?: boolean;
  distributions?: boolean;
  /** Log-probs at these temperatures without an error bound. */
  exact_temperatures?: readonly number[];
}

type Ability = Exclude<keyof Needs, "exact_temperatures">;

const IN_WORDS: Readonly<Record<Ability, string>> = {
  sample: "sample with known token ids",
  logprobs: "report log-probs of given texts",
  topk: "report the most likely tokens",
  at_ids: "report log-probs at chosen tokens",
  distributions: "report whole distributions",
};

/** The first thing a model cannot do, in words; null: it can do all. */
export function lacking(able: Capabilities, { exact_temperatures: temperatures, ...needs }: Needs): string | null {
  for (const [need, wanted] of Object.entries(needs) as [Ability, boolean][]) {
    if (wanted && !able[need]) return IN_WORDS[need];
  }
  const temperature = inexact(able, temperatures);
  return temperature === undefined ? null : `report log-probs at temperature ${temperature} exactly`;
}

/** The first of the temperatures at which a model could only estimate. */
export function inexact(
  { exact_temperatures: exact }: Capabilities,
  temperatures: readonly number[] = [],
): number | undefined {
  return exact === null ? undefined : temperatures.find((temperature) => !exact.includes(temperature));
}

/** What a request needs that needs all of these. */
export function together(all: readonly Needs[]): Needs {
  const needs: Needs = { exact_temperatures: all.flatMap(({ exact_temperatures: temperatures = [] }) => temperatures) };
  for (const need of Object.keys(IN_WORDS) as Ability[]) needs[need] = all.some((each) => each[need]);
  return needs;
}
