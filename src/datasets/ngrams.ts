/**
 * Which texts share a run of words with texts that must not be trained on (Brown et al. 2020, "Language Models are Few-Shot
 * Learners", appendix C: 13 words). Runs are compared by 53 bits of hash: of a million texts of fifty words against a test set
 * of a hundred thousand runs, one in two thousand such comparisons of whole sets names one text wrongly.
 */
import { fail } from "../errors.ts";
import { hashedRuns, wordsOf } from "./words.ts";

export const DEFAULT_NGRAM = 13;
/** 12 bytes each, in tables that are half empty: some 400 MB. The largest test sets have a million. */
const MAX_RUNS = 16_000_000;
const FIRST_SLOTS = 1_024;
/** Any two numbers: both hashes of a run must agree. */
const SEEDS = [0, 0x9e3779b9] as const;

export interface SharedRun {
  /** What was given with the text that has the run. */
  owner: number;
  words: string;
}

export interface NgramIndex {
  /** `owner` is below 2^32 - 1. A text that is shorter than a run is one run by itself. */
  add(text: string, owner: number): void;
  /** The first run that a text of the index has too. */
  find(text: string): SharedRun | undefined;
}

export function createNgramIndex(length: number): NgramIndex {
  let keys = new Float64Array(FIRST_SLOTS);
  /** Owner + 1; 0: the slot is free. */
  let owners = new Uint32Array(FIRST_SLOTS);
  let size = 0;

  function slotOf(key: number): number {
    const mask = owners.length - 1;
    let slot = ((key % 2 ** 32) ^ (key / 2 ** 21)) & mask;
    while (owners[slot] !== 0 && keys[slot] !== key) slot = (slot + 1) & mask;
    return slot;
  }
  function grow(): void {
    if (size > MAX_RUNS) {
      const message = `the datasets to compare with have more than ${MAX_RUNS} runs of ${length} words; name fewer of them`;
      throw fail("invalid_value", message, { param: "decontaminate.against" });
    }
    const [oldKeys, oldOwners] = [keys, owners];
    keys = new Float64Array(2 * oldKeys.length);
    owners = new Uint32Array(2 * oldOwners.length);
    for (const [i, owner] of oldOwners.entries()) {
      if (owner === 0) continue;
      const slot = slotOf(oldKeys[i]!);
      keys[slot] = oldKeys[i]!;
      owners[slot] = owner;
    }
  }

  return {
    add(text, owner) {
      for (const key of runsOf(wordsOf(text), length)) {
        const slot = slotOf(key);
        if (owners[slot] !== 0) continue;
        keys[slot] = key;
        owners[slot] = owner + 1;
        if (4 * ++size > 3 * owners.length) grow();
      }
    },

    find(text) {
      const words = wordsOf(text);
      for (const [i, key] of runsOf(words, length).entries()) {
        const owner = owners[slotOf(key)]!;
        if (owner !== 0) return { owner: owner - 1, words: words.slice(i, i + length).join(" ") };
      }
      return undefined;
    },
  };
}

/** 32 bits of one hash and 21 of another, which a number holds exactly. */
function runsOf(words: readonly string[], length: number): Float64Array {
  const [high, low] = SEEDS.map((seed) => hashedRuns(words, length, seed));
  return Float64Array.from(high!, (hash, i) => hash * 2 ** 21 + (low![i]! >>> 11));
}
