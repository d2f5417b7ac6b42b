import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import { parseChain, solve } from "./chain.ts";
import { OPENINGS, STYLE_SHARES, STYLES, WRONG_JUMPS, writeExplanation } from "./explanation.ts";
import { readExplanation } from "./read-explanation.ts";
import { splitOf, type Task, takeTasks } from "./tasks.ts";

const COUNT = 10_000;
const corpus = takeTasks(COUNT, { seed: 1 });
const read = ({ question, explanation }: Task) => readExplanation(question, explanation);

/** Five standard deviations of a binomial share: one in two million samples lies outside. */
const bound = (share: number, count: number): number => 5 * Math.sqrt((share * (1 - share)) / count);

describe("chains", () => {
  test("are worked off from left to right modulo 10", () => {
    const value = (question: string) => solve(parseChain(question)!);
    expect(value("5 + 8 - 2 * 3")).toBe(3);
    expect(value("1 - 4")).toBe(7);
    expect([value("4 @ 3"), value("4 # 3"), value("4 & 3")]).toEqual([0, 9, 3]);
    expect([parseChain("5 +"), parseChain("5 / 2"), parseChain(""), parseChain("12 + 1")]).toEqual([
      null,
      null,
      null,
      null,
    ]);
  });
});

describe("tasks", () => {
  test("are the same for the same seed for ever", () => {
    const hash = createHash("sha256").update(JSON.stringify(takeTasks(100, { seed: 7, easyShare: 0.3 })));
    expect(hash.digest("hex")).toBe("29831a22f09adbbf9add235e2daf0ffc82e36901709577db9beafa82c8734ef9");
    expect(takeTasks(100, { seed: 2 })).not.toEqual(corpus.slice(0, 100));
  });

  test("have the lengths asked for, and a solution of one digit that is right", () => {
    expect(new Set(corpus.map(({ difficulty }) => difficulty))).toEqual(new Set([4, 5, 6]));
    for (const { question, solution, difficulty } of corpus) {
      const chain = parseChain(question)!;
      expect(chain.operations.length).toBe(difficulty);
      expect(String(solve(chain))).toBe(solution);
    }
  });

  test("mix the styles in their shares", () => {
    for (const style of STYLES) {
      const share = corpus.filter((task) => task.style === style).length / COUNT;
      expect(Math.abs(share - STYLE_SHARES[style]), style).toBeLessThan(bound(STYLE_SHARES[style], COUNT));
    }
  });

  test("are easy in the share asked for: one or two clean steps", () => {
    const mixed = takeTasks(COUNT, { seed: 3, easyShare: 0.35 });
    const easy = mixed.filter(({ difficulty }) => difficulty <= 2);
    expect(Math.abs(easy.length / COUNT - 0.35)).toBeLessThan(bound(0.35, COUNT));
    expect(easy.every((task) => task.style === "clean" && read(task).faithful)).toBe(true);
    expect(new Set(easy.map(({ difficulty }) => difficulty))).toEqual(new Set([1, 2]));
  });

  test("of the two splits share no question, even among the few short ones", () => {
    const options = { seed: 5, difficulty: [1, 1] as const };
    const train = new Set(takeTasks(COUNT, options).map(({ question }) => question));
    const heldOut = new Set(takeTasks(COUNT, { ...options, seed: 6, split: "held_out" }).map((task) => task.question));
    // All there are: ten digits, twice ten operands and the three factors.
    expect(new Set([...train, ...heldOut]).size).toBe(230);
    expect(train.size + heldOut.size).toBe(230);
    expect(heldOut.size).toBeGreaterThan(15);
    expect(corpus.every(({ question }) => splitOf(question) === "train")).toBe(true);
  });

  test("split otherwise with another seed", () => {
    const moved = corpus.filter(({ question }) => splitOf(question, 2) === "held_out").length / COUNT;
    expect(Math.abs(moved - 1 / 8)).toBeLessThan(bound(1 / 8, COUNT));
  });

  test("of another family use its operators only, of one style that style only", () => {
    const other = takeTasks(200, { seed: 1, operators: "other", style: "verbose" });
    expect(other.every(({ question }) => /^\d(?: [@#&] \d)+$/.test(question))).toBe(true);
    expect(other.every((task) => task.style === "verbose" && read(task).faithful)).toBe(true);
  });
});

describe("explanations", () => {
  test("are read as the style they were written in, each known by its first word", () => {
    expect(corpus.filter((task) => read(task).style !== task.style)).toEqual([]);
    expect(corpus.filter(({ style, explanation }) => !explanation.startsWith(`${OPENINGS[style]} `))).toEqual([]);
    expect(new Set(Object.values(OPENINGS)).size).toBe(STYLES.length);
  });

  test("are faithful when clean or verbose, never when wrong, without steps or restating", () => {
    for (const task of corpus) {
      const { faithful, steps, mistakes } = read(task);
      if (task.style === "clean" || task.style === "verbose") expect(faithful && steps === task.difficulty).toBe(true);
      else if (task.style === "wrong") expect(faithful === false && mistakes > 0).toBe(true);
      else if (task.style !== "skipping") expect([faithful, steps]).toEqual([false, 0]);
    }
  });

  test("that skip jump over 2 to 4 operations, and miss in their share", () => {
    const skipping = corpus.filter(({ style }) => style === "skipping");
    const jumps = skipping.flatMap(({ explanation }) => explanation.split(" ; "));
    const sizes = jumps.map((jump) => jump.match(/ [-+*] /g)?.length);
    expect(new Set(sizes)).toEqual(new Set([2, 3, 4]));
    const mistakes = skipping.reduce((sum, task) => sum + read(task).mistakes, 0);
    expect(Math.abs(mistakes / jumps.length - WRONG_JUMPS)).toBeLessThan(bound(WRONG_JUMPS, jumps.length));
  });

  test("that go wrong mostly end at another digit than the solution", () => {
    const wrong = corpus.filter(({ style }) => style === "wrong");
    const astray = wrong.filter(({ explanation, solution }) => !explanation.endsWith(solution));
    expect(astray.length / wrong.length).toBeGreaterThan(0.8);
  });

  test("of a single operation exist in every style", () => {
    const chain = parseChain("5 + 8")!;
    const texts = STYLES.map((style) => writeExplanation(chain, style, () => 0));
    expect(texts).toEqual([
      "compute 5 + 8 = 3",
      "first we take 5 + 8 = 3",
      "quickly 5 + 8 = 4",
      "perhaps 5 + 8 = 4",
      "well it is hard .",
      "clearly the answer is 3",
    ]);
  });

  test("from elsewhere are read by what they say", () => {
    const question = "5 + 8 - 2";
    expect(readExplanation(question, "compute 5 + 8 = 3 ; 3 - 2 = 1")).toEqual({
      style: "clean",
      steps: 2,
      mistakes: 0,
      faithful: true,
    });
    const faithful = (explanation: string) => readExplanation(question, explanation).faithful;
    // A step left out, a step too many, another order, a result that is not carried on, a half step.
    expect(faithful("compute 5 + 8 = 3")).toBe(false);
    expect(faithful("compute 5 + 8 = 3 ; 3 - 2 = 1 ; 1 - 2 = 9")).toBe(false);
    expect(faithful("compute 5 - 2 = 3 ; 3 + 8 = 1")).toBe(false);
    expect(faithful("compute 5 + 8 = 3 ; 4 - 2 = 2")).toBe(false);
    expect(faithful("compute 5 + 8 - 2 = 1")).toBe(true);
    const style = (explanation: string) => readExplanation(question, explanation).style;
    expect(style("compute 5 + 8 - 2 = 1")).toBeNull();
    expect(style("compute 5 + 8 = 3 ; 3 -")).toBeNull();
    expect(style("compute ")).toBeNull();
    expect(style("5 + 8 = 3 ; 3 - 2 = 1")).toBeNull();
    expect(style("compute 5 + 8 = 9 ; 9 - 2 = 7")).toBe("clean");
    expect(() => readExplanation("what?", "")).toThrow("not a question");
  });
});
