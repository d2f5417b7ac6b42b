import fc from "fast-check";
import { expect, test } from "vitest";
import { bandsFor, createNearDuplicates, MINHASHES } from "../../../src/datasets/minhash.ts";
import { wordsOf } from "../../../src/datasets/words.ts";

/** Numbers that look random and are the same for ever. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}
/** A text of single words (shingles of one word), so that its set is the words themselves. */
const words = (from: number, to: number): string =>
  Array.from({ length: to - from }, (_, i) => `w${from + i}`).join(" ");

test("words: case, blanks and punctuation do not count, signs of arithmetic do", () => {
  expect(wordsOf("What  is, Ｗhat IS\n$x^2-3$?")).toEqual(["what", "is", "what", "is", "x", "^", "2", "-", "3"]);
  expect(wordsOf("5! = 120, wow!")).toEqual(["5", "!", "=", "120", "wow"]);
  expect(wordsOf("(2+3)*4")).not.toEqual(wordsOf("2+(3*4)"));
  expect(wordsOf("数学 is ไท")).toEqual(["数", "学", "is", "ไ", "ท"]);
  expect(wordsOf(" … ")).toEqual(["…"]);
  expect(wordsOf("")).toEqual([""]);
});

test("add names the earlier text, in the order of adding; what is near is not kept", () => {
  const near = createNearDuplicates({ threshold: 0.8 });
  const long = words(0, 60);
  expect(near.add(long)).toBeUndefined();
  expect(near.add("something else altogether, of seven words")).toBeUndefined();
  expect(near.add(`${long.toUpperCase()} !`)).toBe(0);
  expect(near.add("Something else: altogether of seven words.")).toBe(1);
  expect(near.add("a third one")).toBeUndefined();
  expect(near.add("A third one?")).toBe(4);
  expect(near.add("")).toBeUndefined();
  expect(near.add(" ")).toBe(6);
  expect(near.find("a THIRD one")).toEqual({ index: 4, similarity: 1 });
  expect(near.find("a fourth one")).toBeUndefined();
});

test("what is stored is found, be it near to others or not; the nearest is named", () => {
  const near = createNearDuplicates({ threshold: 0.6, shingleWords: 1 });
  near.store(words(0, 100));
  near.store(words(0, 95));
  near.store(words(0, 95));
  expect(near.find(words(0, 95))).toEqual({ index: 1, similarity: 1 });
  expect(near.find(words(0, 100))).toEqual({ index: 0, similarity: 1 });
});

test.each([0.5, 0.7, 0.9])("of pairs that are %d alike, likeness is estimated within its error", (jaccard) => {
  const errors: number[] = [];
  for (let pair = 0; pair < 200; pair++) {
    // |A ∩ B| / |A ∪ B| = shared / (shared + 2 · own)
    const own = 50;
    const shared = Math.round((2 * own * jaccard) / (1 - jaccard));
    const base = pair * 10_000;
    const near = createNearDuplicates({ threshold: 0.5, shingleWords: 1, seed: pair });
    near.store(`${words(base, base + shared)} ${words(base + 5_000, base + 5_000 + own)}`);
    const found = near.find(`${words(base, base + shared)} ${words(base + 7_000, base + 7_000 + own)}`);
    if (found) errors.push(found.similarity - shared / (shared + 2 * own));
  }
  const mean = errors.reduce((a, b) => a + b, 0) / errors.length;
  const deviation = Math.sqrt(errors.reduce((a, b) => a + b * b, 0) / errors.length);
  if (jaccard > 0.5) {
    expect(errors.length).toBeGreaterThan(195);
    expect(Math.abs(mean)).toBeLessThan(0.012);
    expect(deviation).toBeLessThan(1.3 * Math.sqrt((jaccard * (1 - jaccard)) / MINHASHES));
  } else {
    // Half of those at the threshold are estimated below it.
    expect(errors.length).toBeGreaterThan(60);
    expect(errors.length).toBeLessThan(140);
  }
});

test("banding overlooks next to nothing: the same as comparing every pair", () => {
  const next = random(7);
  const texts: string[] = [];
  for (let i = 0; i < 300; i++) {
    const earlier = texts[Math.floor(next() * texts.length)];
    const own = Array.from({ length: 40 }, () => `w${Math.floor(next() * 5_000)}`);
    // Every third is an earlier text with some of its words changed.
    const changed = earlier?.split(" ").map((word) => (next() < 0.03 ? `x${Math.floor(next() * 5_000)}` : word));
    texts.push((i % 3 === 2 && changed ? changed : own).join(" "));
  }
  const shingles = texts.map((text) => {
    const list = text.split(" ");
    return new Set(list.slice(2).map((_, i) => list.slice(i, i + 3).join(" ")));
  });
  const jaccard = (a: Set<string>, b: Set<string>): number => {
    const shared = [...a].filter((shingle) => b.has(shingle)).length;
    return shared / (a.size + b.size - shared);
  };
  const near = createNearDuplicates({ threshold: 0.7, shingleWords: 3 });
  let agreed = 0;
  for (const [i, text] of texts.entries()) {
    const best = Math.max(0, ...shingles.slice(0, i).map((earlier) => jaccard(shingles[i]!, earlier)));
    const found = near.find(text);
    near.store(text);
    // Within three standard errors of the threshold either answer is right.
    if (Math.abs(best - 0.7) > 0.12) expect(found !== undefined, `${i}: ${best}`).toBe(best > 0.7);
    if (best > 0.7 === (found !== undefined)) agreed++;
  }
  expect(agreed).toBeGreaterThan(285);
});

test("the same answers again, and for any texts; a text always finds itself (property)", () => {
  fc.assert(
    fc.property(fc.array(fc.string({ unit: "grapheme" }), { maxLength: 30 }), (texts) => {
      const [a, b] = [createNearDuplicates({ threshold: 0.9 }), createNearDuplicates({ threshold: 0.9 })];
      for (const text of texts) {
        expect(a.add(text)).toBe(b.add(text));
        expect(a.find(text)?.similarity).toBeGreaterThanOrEqual(0.9);
      }
    }),
  );
});

test("thousands of texts of one template cost bounded work, and equal ones are still found", () => {
  const near = createNearDuplicates({ threshold: 0.8 });
  const text = (i: number): string =>
    `Using the numbers ${i} and ${i * 7}, create an equation that equals ${i * 3}. You can use basic arithmetic operations and each number can only be used once.`;
  let found = 0;
  for (let i = 1; i <= 3_000; i++) if (near.add(text(i)) !== undefined) found++;
  expect(found).toBeLessThan(3_000);
  for (const i of [1, 2_000]) expect(near.find(text(i))?.similarity).toBeGreaterThanOrEqual(0.8);
});

test("bands: as wide as they can be, with one pair in a hundred missed at the threshold", () => {
  expect([0.5, 0.7, 0.8, 0.9, 1].map(bandsFor)).toEqual([
    { bands: 17, width: 2 },
    { bands: 17, width: 4 },
    { bands: 16, width: 6 },
    { bands: 11, width: 10 },
    { bands: 1, width: 128 },
  ]);
  for (let t = 0.5; t < 1; t += 0.01) {
    const { bands, width } = bandsFor(t);
    expect(bands * width).toBeLessThanOrEqual(MINHASHES);
    expect((1 - t ** width) ** bands).toBeLessThanOrEqual(0.0101);
  }
  for (const threshold of [0, 0.49, 1.01, Number.NaN]) {
    expect(() => createNearDuplicates({ threshold })).toThrow(/likeness/);
  }
});
