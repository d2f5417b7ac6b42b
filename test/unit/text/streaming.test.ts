import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createIncrementalDecoder } from "../../../src/text/incremental.ts";
import { createStopMatcher } from "../../../src/text/stop-matcher.ts";

/** A model whose id i stands for the i-th chunk. */
const modelOf = (chunks: readonly Uint8Array[]) => ({ bytesOf: (id: number) => chunks[id] ?? new Uint8Array() });

function cutInto<T extends Uint8Array | string>(whole: T, lengths: readonly number[]): T[] {
  const chunks: T[] = [];
  for (let at = 0, i = 0; at < whole.length; i++) {
    const length = lengths[i % lengths.length] ?? 1;
    chunks.push(whole.slice(at, at + length) as T);
    at += length;
  }
  return chunks;
}

describe("incremental decoding", () => {
  test("any split of any bytes gives what the whole gives, and never half a character", () => {
    const anyBytes = fc.oneof(
      fc.uint8Array({ maxLength: 40 }),
      fc.string({ unit: "binary", maxLength: 20 }).map((text) => new Uint8Array(Buffer.from(text))),
    );
    fc.assert(
      fc.property(anyBytes, fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1 }), (bytes, lengths) => {
        const chunks = cutInto(bytes, lengths);
        const decoder = createIncrementalDecoder(modelOf(chunks));
        const deltas = chunks.map((_, id) => decoder.push(id));
        deltas.push(decoder.flush());
        expect(deltas.join("")).toBe(new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes));
        expect(deltas.some((delta) => /\p{Surrogate}/u.test(delta))).toBe(false);
      }),
    );
  });

  test("a character waits for its last byte; an unfinished one ends as U+FFFD", () => {
    const decoder = createIncrementalDecoder(modelOf(Array.from(Buffer.from("😀"), (byte) => Uint8Array.of(byte))));
    expect([0, 1, 2].map((id) => decoder.push(id))).toEqual(["", "", ""]);
    expect(decoder.push(3)).toBe("😀");
    decoder.push(0);
    expect(decoder.flush()).toBe("\ufffd");
    expect(decoder.flush()).toBe("");
  });

  test("the space in front is dropped at the start of a text only", () => {
    const model = modelOf([Buffer.from(" the")]);
    const decoder = createIncrementalDecoder(model, { stripSpace: true });
    expect([decoder.push(9), decoder.push(0), decoder.push(0)]).toEqual(["", "the", " the"]);
    expect(createIncrementalDecoder(model).push(0)).toBe(" the");
  });
});

/** Reads character by character; the first stop that is complete wins, the longest of several. */
function naiveStop(text: string, stops: readonly string[]): { text: string; matched?: string } {
  const ordered = stops.filter((stop) => stop !== "").sort((a, b) => b.length - a.length);
  for (let end = 1; end <= text.length; end++) {
    const matched = ordered.find((stop) => text.slice(0, end).endsWith(stop));
    if (matched) return { text: text.slice(0, end - matched.length), matched };
  }
  return { text };
}

describe("stop strings", () => {
  const letters = fc.string({ unit: fc.constantFrom("a", "b", "\n", "😀"), maxLength: 30 });

  test("any split of any text behaves like a search in the whole", () => {
    const stops = fc.array(fc.string({ unit: fc.constantFrom("a", "b", "\n", "😀"), maxLength: 5 }), { maxLength: 3 });
    fc.assert(
      fc.property(letters, stops, fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1 }), (text, list, lengths) => {
        const expected = naiveStop(text, list);
        const matcher = createStopMatcher(list);
        let emitted = "";
        let matched: string | undefined;
        for (const chunk of cutInto(text, lengths)) {
          const result = matcher.push(chunk);
          emitted += result.emit;
          matched ??= result.matched;
          // Nothing that is part of the stop, or might be, has been sent.
          if (!expected.text.startsWith(emitted)) expect(emitted).toBe(expected.text);
        }
        expect(matched).toBe(expected.matched);
        if (matched === undefined) emitted += matcher.flush();
        expect(emitted).toBe(expected.text);
      }),
      { numRuns: 300 },
    );
  });

  test("only what may become a stop is held back", () => {
    const matcher = createStopMatcher(["</end>"]);
    expect(matcher.push("a < b </e")).toEqual({ emit: "a < b ", stopped: false });
    expect(matcher.push("x")).toEqual({ emit: "</ex", stopped: false });
    expect(matcher.push("y</end>z")).toEqual({ emit: "y", stopped: true, matched: "</end>" });
    expect(matcher.push("more")).toEqual({ emit: "", stopped: true });
    expect(matcher.flush()).toBe("");
  });

  test("without stops, or with empty ones, everything passes", () => {
    expect(createStopMatcher([]).push("abc")).toEqual({ emit: "abc", stopped: false });
    expect(createStopMatcher([""]).push("abc")).toEqual({ emit: "abc", stopped: false });
  });

  test("a long repetitive stop costs linear time", () => {
    const matcher = createStopMatcher([`${"a".repeat(20_000)}b`]);
    let emitted = 0;
    for (let i = 0; i < 100; i++) emitted += matcher.push("a".repeat(2_000)).emit.length;
    expect(emitted).toBe(180_000);
    expect(matcher.push("b")).toMatchObject({ stopped: true });
  });
});
