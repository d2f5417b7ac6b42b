/** Uniform in [0, 1), the same numbers for the same seed (mulberry32). */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A whole number from `least` to `most`, both included. */
export const between = (next: () => number, least: number, most: number): number =>
  least + Math.floor(next() * (most - least + 1));

/** Every vocabulary has these ids, and none of them is a control token. */
const [LEAST_ID, MOST_ID] = [10, 400];

/** A prompt as token ids: its length is exact, and no tokenizer is needed. */
export const randomIds = (next: () => number, length: number): number[] =>
  Array.from({ length }, () => between(next, LEAST_ID, MOST_ID));
