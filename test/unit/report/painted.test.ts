import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type PaintedText, paint, SHOWN_CHARACTERS } from "../../../src/report/painted.ts";
import { levelOf, painted, surpriseRules } from "../../../src/report/surprise.ts";

const textOf = ({ pieces }: PaintedText): string => pieces.map(({ text }) => text).join("");
const values = (ends: number[], logprobs: (number | null)[], kl?: (number | null)[]) => ({ ends, logprobs, kl });

describe("a text in the pieces of its tokens", () => {
  test("each has its own surprise, and what lies behind the last one has none", () => {
    expect(paint("one two.", values([3, 7], [-0.5, -2], [null, 0.25])).pieces).toEqual([
      { text: "one", surprise: 0.5, kl: null },
      { text: " two", surprise: 2, kl: 0.25 },
      { text: ".", surprise: null, kl: null },
    ]);
  });

  test("tokens inside one character are one piece with the larger surprise", () => {
    expect(paint("a😀b", values([1, 3, 5, 6], [-1, -4, -2, 0])).pieces).toEqual([
      { text: "a", surprise: 1, kl: null },
      { text: "😀", surprise: 4, kl: null },
      { text: "b", surprise: 0, kl: null },
    ]);
  });

  test.each([
    ["on both sides", "42", [2, 4, 6]],
    ["none", "42", [2]],
    ["before, for the end has its own", "42\n\n", [2, 4, 6]],
  ])("a solution's padding is not part of it: %s", (_, solution, ends) => {
    const { pieces } = paint(
      solution,
      values(
        ends,
        ends.map((_end, i) => -(i + 1)),
      ),
      { padded: true },
    );
    expect(textOf({ pieces, cut: 0 })).toBe(solution);
    // The token that is the padding before it colours nothing.
    expect(pieces[0]).toMatchObject({ text: "42", surprise: ends.length > 1 ? 2 : 1 });
  });

  test.each<[string, unknown]>([
    ["absent", undefined],
    ["a number", 17],
    ["of different lengths", values([1, 2], [-1])],
    ["going back", values([2, 1], [-1, -1])],
    ["beyond the text", values([1, 400], [-1, -1])],
    ["no numbers", { ends: ["1"], logprobs: [-1] }],
    ["fractions", values([0.5], [-1])],
  ])("values that are %s leave it uncoloured", (_, given) => {
    expect(paint("text", given).pieces).toEqual([{ text: "text", surprise: null, kl: null }]);
  });

  test("no text is lost or made up, whatever the ends", () => {
    const text = fc.string({ unit: "grapheme", maxLength: 40 });
    const ends = fc.array(fc.nat({ max: 60 }), { minLength: 1, maxLength: 20 }).map((all) => all.sort((a, b) => a - b));
    fc.assert(
      fc.property(text, ends, fc.boolean(), (source, given, padded) => {
        const found = paint(
          source,
          values(
            given,
            given.map(() => -1),
          ),
          { padded },
        );
        expect(textOf(found)).toBe(source);
        expect(found.cut).toBe(0);
      }),
    );
  });

  test("of a long one the beginning is shown and the rest counted", () => {
    const text = "word ".repeat(10_000);
    const ends = Array.from({ length: 10_000 }, (_, i) => 5 * (i + 1));
    for (const given of [
      undefined,
      values(
        ends,
        ends.map(() => -1),
      ),
    ]) {
      const found = paint(text, given);
      expect(textOf(found).length).toBeLessThanOrEqual(SHOWN_CHARACTERS);
      expect(textOf(found).length + found.cut).toBe(text.length);
    }
  });
});

describe("its colours", () => {
  test("grow with surprise, over all levels", () => {
    const levels = [0.95, 0.8, 0.6, 0.3, 0.2, 0.05, 0.02, 0.001].map((p) => levelOf(-Math.log(p)));
    expect(levels).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });

  test.each(["light", "dark"] as const)("are of one hue in equal steps of lightness on %s paper", (paper) => {
    const rules = [...surpriseRules(paper).matchAll(/oklch\(([\d.]+) [\d.]+ ([\d.]+)\)/g)];
    expect(new Set(rules.map(([, , hue]) => hue)).size).toBe(1);
    const steps = rules.slice(1).map(([, lightness], i) => Number(lightness) - Number(rules[i]![1]));
    for (const step of steps) expect(step).toBeCloseTo(paper === "light" ? -0.08 : 0.08, 6);
  });

  test("text of a token is escaped and what hides text is made visible", async () => {
    const hostile = '<img src=x onerror=alert(1)>"&\u202e\u0000';
    const page = String(await painted(paint(hostile, values([Buffer.byteLength(hostile)], [-3]))));
    expect(page).toContain('<span class="s5" title="−log p 3.000 · p 5.0 %">');
    expect(page).toContain("&lt;img src=x onerror=alert(1)&gt;&quot;&amp;");
    for (const hidden of ["\u202e", "\u0000", "<img"]) expect(page).not.toContain(hidden);
  });
});
