/** Scoring with tokenizers that merge what they should not, against sums written out by hand. */
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import type { EngineModel } from "../../../src/engine/engine.ts";
import { fail } from "../../../src/errors.ts";
import { studentFormat, teacherFormat } from "../../../src/rlt/formats.ts";
import { explanationSteps, MAX_STEPS } from "../../../src/rlt/progress.ts";
import type { ScoringModel } from "../../../src/rlt/reading.ts";
import { DEFAULT_COEFFICIENTS } from "../../../src/rlt/reward.ts";
import { type ScoreOptions, scoreExplanation } from "../../../src/rlt/score.ts";
import type { TextModel } from "../../../src/text/text.ts";
import { createFakeEngine, fakeLogprobs } from "../../api/fakes.ts";

const utf8 = new TextEncoder();
const VOCAB = 300;

/** Bytes, and the given words wherever they occur (longest first), across all borders. The prompt is the user's turn. */
function wordText(words: readonly string[], hash = words.join("|"), prompt = true): TextModel {
  const known = words.map((word, i) => ({ id: 256 + i, bytes: utf8.encode(word) }));
  known.sort((a, b) => b.bytes.length - a.bytes.length);
  const bytesOf = (id: number): Uint8Array =>
    id < 256 ? Uint8Array.of(id) : (known.find((w) => w.id === id)?.bytes ?? new Uint8Array());
  function encode(text: string) {
    const bytes = utf8.encode(text);
    const ids: number[] = [];
    const ends: number[] = [];
    for (let at = 0; at < bytes.length; ) {
      const word = known.find((w) => w.bytes.every((b, i) => bytes[at + i] === b));
      ids.push(word?.id ?? (bytes[at] as number));
      at += word?.bytes.length ?? 1;
      ends.push(at);
    }
    return { ids: Int32Array.from(ids), ends: Int32Array.from(ends), text, fields: {} };
  }
  return {
    tokenizerHash: `sha256:${hash}`,
    size: 256 + words.length,
    hasChatTemplate: true,
    eosIds: [],
    bytesOf,
    encode: async (text) => encode(text),
    async encodePrompt({ messages, assistant = [] }) {
      let text = prompt ? `${messages.map((m) => m.content).join("\n")}\n` : "";
      const fields: Record<string, { start: number; end: number }> = {};
      for (const part of assistant) {
        const start = utf8.encode(text).length;
        text += part.text;
        if (part.field) fields[part.field] = { start, end: utf8.encode(text).length };
      }
      return { ...encode(text), fields };
    },
    decode: async (ids) => new TextDecoder().decode(Uint8Array.from([...ids].flatMap((id) => [...bytesOf(id)]))),
  };
}

const engine = (more: Partial<EngineModel> = {}): EngineModel => ({
  ...createFakeEngine({ contextLength: 20_000, vocabSize: VOCAB }),
  ...more,
});
const plain = { system: null, prefix: "[", close: "]", solution_padding: "" };
const telling = { ...plain, prefix: "{solution}[" };
const teacherOf = (text: TextModel, format: Parameters<typeof teacherFormat>[0] = telling, model = engine()) =>
  ({ engine: model, text, adapter: null, format: teacherFormat(format) }) satisfies ScoringModel<unknown>;
const studentOf = (text: TextModel, format: Parameters<typeof studentFormat>[0] = plain, model = engine()) =>
  ({ engine: model, text, adapter: null, format: studentFormat(format) }) satisfies ScoringModel<unknown>;

const options: ScoreOptions = {
  temperature: 0.7,
  coefficients: DEFAULT_COEFFICIENTS,
  estimator: "k1",
  topK: 5,
  parity: false,
  tokens: true,
};
const input = (thought: string, solution = "5", close = "]") => ({
  question: "q?",
  solution,
  completion: thought + close,
  close,
});

/** Log-probs of the tokens that lie in bytes [start, end) of one side's whole text, by the border they end at. */
async function naive(text: TextModel, whole: string, start: number): Promise<Map<number, number>> {
  const { ids, ends } = await text.encode(whole, { parseSpecial: false, addSpecial: false });
  const byEnd = new Map<number, number>();
  ids.forEach((id, i) => {
    const row = fakeLogprobs([...ids.subarray(0, i)], options.temperature, VOCAB);
    byEnd.set((ends[i] as number) - start, row[id] as number);
  });
  return byEnd;
}

describe("two tokenizers", () => {
  const words = wordText(["he", "llo", "wor", "ld!"]);
  const letters = wordText(["l", "or"]);

  test("KL is summed over the shortest common stretches and averaged over the student's tokens", async () => {
    const thought = "hello world!";
    const score = await scoreExplanation(studentOf(letters), teacherOf(words), input(thought), options);
    const written = await naive(words, `q?\n5[${thought}]`, "q?\n5[".length);
    const read = await naive(letters, `q?\n[${thought}]5`, "q?\n[".length);
    // he|llo| |wor|ld! on one side, letters and "or" on the other.
    const borders = [0, 2, 5, 6, 9, 12];
    const values = borders.slice(1).map((end, i) => {
      const begin = borders[i] as number;
      const within = ([at]: [number, number]): boolean => at > begin && at <= end;
      const sum = (side: Map<number, number>): number =>
        [...side].filter(within).reduce((total, [, logprob]) => total + logprob, 0);
      return sum(written) - sum(read);
    });
    const studentTokens = [..."hello w"].length + 1 + [..."ld!"].length;
    expect(score.kl?.mean).toBeCloseTo(values.reduce((a, b) => a + b, 0) / studentTokens, 6);
    expect(score.kl?.max).toBeCloseTo(Math.max(...values), 6);
    expect(score.solution.logprob_mean).toBeCloseTo(read.get(thought.length + 2) as number, 6);
    expect(score.warnings).toEqual(["foreign_text"]);
    // Each stretch stands at the student's first token of it.
    const shown = score.tokens?.thought.filter((token) => token.kl !== null) ?? [];
    expect(shown.map((token) => token.start)).toEqual(borders.slice(0, -1));
    shown.forEach((token, i) => {
      expect(token.kl).toBeCloseTo(values[i] as number, 6);
    });
    const k3 = await scoreExplanation(studentOf(letters), teacherOf(words), input(thought), {
      ...options,
      estimator: "k3",
    });
    const expected = values.map((kl) => kl - 1 + Math.exp(-kl));
    expect(k3.kl?.mean).toBeCloseTo(expected.reduce((a, b) => a + b, 0) / studentTokens, 4);
    expect(k3.warnings).toEqual([]);
  });

  test("whole distributions need one tokenizer", async () => {
    for (const estimator of ["full", "topk_tail"] as const) {
      await expect(
        scoreExplanation(studentOf(letters), teacherOf(words), input("hello"), { ...options, estimator }),
      ).rejects.toMatchObject({ code: "estimator_needs_shared_tokenizer", param: "kl.estimator" });
    }
  });
});

describe("what the teacher sampled itself", () => {
  const words = wordText(["he", "llo", "wor", "ld!"]);
  const letters = wordText(["l", "or"]);
  const never = engine({ logprobs: () => Promise.reject(new Error("the teacher was run twice")) });
  /** Log-probs −1, −2 … of these ids, which write the thought and the closing tag. */
  const drawn = (ids: number[], errorBounds = ids.map(() => 0)) => ({
    ids,
    logprobs: ids.map((_, i) => -(i + 1)),
    errorBounds,
  });
  const bytes = (text: string): number[] => [...utf8.encode(text)];

  test("its ids are laid beside the student's tokens, whatever its tokenizer makes of the text", async () => {
    const thought = "hello world!";
    // h|e|llo| |wor|ld! and the tag: not what encoding "hello" gives. 299 has no bytes.
    const sampled = drawn([...bytes("he"), 257, ...bytes(" "), 258, 259, ...bytes("]"), 299]);
    const teacher = teacherOf(words, telling, never);
    const score = await scoreExplanation(studentOf(letters), teacher, { ...input(thought), sampled }, options);
    const read = await naive(letters, `q?\n[${thought}]5`, "q?\n[".length);
    const borders = [0, 1, 2, 5, 6, 9, 12];
    const values = borders.slice(1).map((end, i) => {
      const mine = [...read].filter(([at]) => at > (borders[i] as number) && at <= end);
      return -(i + 1) - mine.reduce((total, [, logprob]) => total + logprob, 0);
    });
    const studentTokens = [..."hello w"].length + 1 + [..."ld!"].length;
    expect(score.kl?.mean).toBeCloseTo(values.reduce((a, b) => a + b, 0) / studentTokens, 6);
    expect(score.kl?.max).toBeCloseTo(Math.max(...values), 6);
    expect(score).toMatchObject({ tokensFrom: "ids", warnings: [], errorBound: null });
  });

  test("a student with the same tokenizer reads the very ids that were drawn", async () => {
    // Written, "hello" would be he|llo.
    const own = [...bytes("he"), 257];
    const sampled = drawn([...own, ...bytes("]")]);
    const teacher = teacherOf(words, telling, never);
    const score = await scoreExplanation(studentOf(words), teacher, { ...input("hello"), sampled }, options);
    const ids = [...bytes("q?\n["), ...own, ...bytes("]5")];
    const at = (i: number): number => fakeLogprobs(ids.slice(0, i), options.temperature, VOCAB)[ids[i]!]!;
    const values = own.map((_, i) => -(i + 1) - at(4 + i));
    expect(score.kl?.mean).toBeCloseTo(values.reduce((a, b) => a + b, 0) / own.length, 6);
    expect(score.kl?.max).toBeCloseTo(Math.max(...values), 6);
    expect(score.solution.logprob_mean).toBeCloseTo(at(ids.length - 1), 6);
    expect(score.tokens?.thought.map(({ id }) => id)).toEqual(own);
  });

  test("ids that do not write the explanation alone are read as its text", async () => {
    const joined = wordText(["o]", "he"]);
    const sampled = drawn([...bytes("hell"), 256]);
    const teacher = teacherOf(joined, telling, never);
    const score = await scoreExplanation(studentOf(joined), teacher, { ...input("hello"), sampled }, options);
    // The student's own tokens: he|l|l, and the last letter merged with its tag.
    expect(score.tokens?.thought.map(({ text }) => text)).toEqual(["he", "l", "l"]);
  });

  test("a token that completes the thought and begins the tag belongs to neither", async () => {
    const joined = wordText(["o]"]);
    const sampled = drawn([...bytes("hell"), 256]);
    const teacher = teacherOf(joined, telling, never);
    const plainStudent = studentOf(wordText([]));
    const score = await scoreExplanation(plainStudent, teacher, { ...input("hello"), sampled }, options);
    expect(score.tokens?.thought.map(({ teacher_logprob: logprob }) => logprob)).toEqual([-1, -2, -3, -4, null]);
  });

  test("bytes that are no text are compared as what replaces them; whole characters are not torn", async () => {
    // € in two tokens, a byte without a meaning, and a character that never ends.
    const ids = [0xe2, 0x82, 0xac, 0xff, 65, 0xe2];
    const thought = new TextDecoder().decode(Uint8Array.from(ids));
    const open = { ...input(thought), completion: thought, sampled: drawn(ids) };
    const score = await scoreExplanation(studentOf(wordText([])), teacherOf(words, telling, never), open, options);
    const starts = score.tokens?.thought.filter(({ kl }) => kl !== null).map(({ start }) => start);
    expect(starts).toEqual([0, 3, 6, 7]);
    const told = score.tokens?.thought.flatMap(({ teacher_logprob: logprob }) => logprob ?? []);
    expect(told).toEqual([-6, -4, -5, -6]);
  });

  test("tokens without bytes at its ends say nothing about the text", async () => {
    const plainStudent = studentOf(wordText([]));
    const teacher = teacherOf(words, telling, never);
    const ended = { ...input("ab"), completion: "ab", sampled: drawn([299, ...bytes("ab"), 299]) };
    const score = await scoreExplanation(plainStudent, teacher, ended, options);
    expect(score.tokens?.thought.map(({ teacher_logprob: logprob }) => logprob)).toEqual([-2, -3]);
  });

  test("estimates bound the reward", async () => {
    const sampled = drawn([...bytes("abc]")], [0.1, 0.2, 0.3, 9]);
    const teacher = teacherOf(words, telling, never);
    const score = await scoreExplanation(studentOf(wordText([])), teacher, { ...input("abc"), sampled }, options);
    expect(score.errorBound).toBeCloseTo(3 * 0.2 + 0.03 * 0.3, 10);
    expect(score.warnings).toEqual(["estimated_logprobs"]);
  });

  test("a student whose tokenizer changes the text is refused", async () => {
    const text = wordText([]);
    const changing: TextModel = {
      ...text,
      encodePrompt: (request) =>
        text.encodePrompt({
          ...request,
          assistant: (request.assistant ?? []).map((part) => ({ ...part, text: part.text.normalize("NFC") })),
        }),
    };
    const thought = "e\u0301";
    const told = { ...input(thought), sampled: drawn(bytes(thought)) };
    await expect(
      scoreExplanation(studentOf(changing), teacherOf(words, telling, never), told, options),
    ).rejects.toMatchObject({ code: "invalid_value", param: "explanation" });
  });
});

describe("tokens that merge with a tag", () => {
  test("belong to neither: the first and last word of an explanation may be missing from its KL", async () => {
    const text = wordText(["[He", "o]"]);
    const score = await scoreExplanation(studentOf(text), teacherOf(text), input("Hello"), options);
    expect(score.tokens?.thought.map((token) => [token.text, token.start, token.end])).toEqual([
      ["l", 2, 3],
      ["l", 3, 4],
    ]);
    expect(score.kl?.mean).toBeTypeOf("number");
    expect(score.kl?.reward).toBeCloseTo(-(3 * (score.kl?.mean as number) + 0.03 * (score.kl?.max as number)), 10);
  });

  test("an explanation without any token of its own costs what an empty one costs, and says so", async () => {
    const text = wordText(["[A]"]);
    const score = await scoreExplanation(studentOf(text), teacherOf(text), input("A"), options);
    expect(score).toMatchObject({ kl: null, warnings: ["no_thought_token"], format: { ok: true, penalty: 0 } });
    expect(score.reward).toBeCloseTo(score.solution.reward - 3.03, 10);
    expect(score.tokens?.thought).toEqual([]);
    // The same on one side only.
    const other = await scoreExplanation(studentOf(wordText([])), teacherOf(text), input("A"), options);
    expect(other).toMatchObject({ kl: null, warnings: ["no_thought_token"] });
  });

  test("a solution without a token of its own is refused with what to do", async () => {
    const text = wordText(["]5"]);
    const error = await scoreExplanation(studentOf(text), null, input("t"), options).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: "invalid_value", param: "solution" });
    expect((error as Error).message).toMatch(/padding/);
    const padded = studentOf(text, { ...plain, solution_padding: "\n" });
    expect((await scoreExplanation(padded, null, input("t"), options)).tokens?.solution).toHaveLength(3);
  });

  test("two formats that cut the explanation differently cannot be compared by whole distributions", async () => {
    const text = wordText(["<a"]);
    const other = { ...plain, prefix: "{solution}<", close: ">" };
    const scored = scoreExplanation(studentOf(text), teacherOf(text, other), input("abc", "5", ">"), {
      ...options,
      estimator: "full",
    });
    // Bytes b and c have the same tokens on both sides.
    expect((await scored).tokens?.thought.map((token) => token.kl === null)).toEqual([true, false, false]);
    const [words, letters] = [wordText(["bc"], "same"), wordText([], "same")];
    await expect(
      scoreExplanation(studentOf(letters), teacherOf(words), input("abcd"), { ...options, estimator: "topk_tail" }),
    ).rejects.toMatchObject({ code: "invalid_value", param: "explanation" });
  });
});

test("the first token of all has no log-prob: it counts for nothing, and nothing becomes NaN", async () => {
  const text = wordText([], "bare", false);
  const student = studentOf(text, { ...plain, prefix: "", close: "]" });
  const score = await scoreExplanation(student, null, input("ab"), options);
  expect(score.tokens?.thought.map((token) => token.text)).toEqual(["b"]);
  expect(JSON.stringify(score)).not.toContain("null,null");
  expect(Number.isFinite(score.reward)).toBe(true);
});

test("a text over one side's context is refused with both numbers", async () => {
  const text = wordText([]);
  const small = createFakeEngine({ contextLength: 50, vocabSize: VOCAB });
  await expect(
    scoreExplanation(studentOf(text, plain, small), null, input("x".repeat(60)), options),
  ).rejects.toMatchObject({
    code: "context_length_exceeded",
    message: expect.stringMatching(/66 tokens.*50/),
  });
});

test("a failure of one side is thrown when the other has come to rest", async () => {
  const text = wordText([]);
  let resting = false;
  const slow = engine();
  const student = studentOf(text, plain, {
    ...slow,
    async logprobs(request) {
      await sleep(30);
      resting = true;
      return slow.logprobs(request);
    },
  });
  const teacher = teacherOf(text, telling, engine({ logprobs: () => Promise.reject(fail("engine_failed", "gone")) }));
  await expect(scoreExplanation(student, teacher, input("abc"), options)).rejects.toMatchObject({
    code: "engine_failed",
  });
  expect(resting).toBe(true);
});

describe("a custom format's own words", () => {
  test("mark parts of the turn only where they look like tags; the closing tag always does", async () => {
    const { tags } = studentFormat({
      prefix: "Think: <thought>",
      close: "DONE",
      between: "\nA: {solution}</answer>",
      suffix: ".",
    });
    expect(tags).toEqual(["DONE", "Think: <thought>", "</answer>"]);
    const wordy = { ...plain, prefix: "T: ", close: "<end>", between: "\nA: ", suffix: "." };
    const text = wordText([]);
    const judged = async (thought: string) =>
      (await scoreExplanation(studentOf(text, wordy), null, input(thought, "5", "]"), options)).format;
    expect(await judged("Two. A: and T: are words.")).toEqual({ ok: true, penalty: 0, violations: [] });
    expect((await judged("so <end> A: 5")).violations).toEqual(["student_tag"]);
  });

  test("may ask the question in the turn", async () => {
    const asks = { ...plain, user: "Go.", prefix: "{question} [" };
    const text = wordText([]);
    const score = await scoreExplanation(studentOf(text, asks), null, input("ab"), options);
    const read = await naive(text, "Go.\nq? [ab]5", 0);
    expect(score.solution.logprob_mean).toBeCloseTo(read.get("Go.\nq? [ab]5".length) as number, 6);
  });
});

describe("steps of an explanation", () => {
  const ends = (text: string) => explanationSteps(text).map((step) => step.end);
  test("are paragraphs, or sentences of a single one, and end with the whole text", () => {
    expect(explanationSteps("Étape.\n\nTwo.\n \nThree.\n\n")).toEqual([
      { text: "Étape.", end: 7 },
      { text: "Étape.\n\nTwo.", end: 13 },
      { text: "Étape.\n\nTwo.\n \nThree.\n\n", end: 24 },
    ]);
    expect(ends("One. Two! Three?")).toEqual([4, 9, 16]);
    expect(ends("3.14 is pi")).toEqual([10]);
    expect(ends("\n\nlate")).toEqual([6]);
    expect(ends("")).toEqual([]);
    expect(ends(" \n ")).toEqual([]);
  });
  test("are joined where there are many, and stay quick for endless white space", () => {
    const many = explanationSteps("word. ".repeat(1000));
    expect(many.length).toBeLessThanOrEqual(MAX_STEPS);
    expect(many.at(-1)?.end).toBe(6000);
    const began = performance.now();
    explanationSteps(`a${"\n".repeat(300_000)}b${" ".repeat(300_000)}\n${" ".repeat(300_000)}c`);
    expect(performance.now() - began).toBeLessThan(2_000);
  });
});
