import fc from "fast-check";
import { expect, test } from "vitest";
import { readCsv } from "../../../src/datasets/csv.ts";
import { readJsonl } from "../../../src/datasets/jsonl.ts";
import { normalise } from "../../../src/datasets/normalise.ts";
import type { RawRow } from "../../../src/datasets/row.ts";
import { boundaryOf, readMultipart } from "../../../src/http/multipart.ts";

async function* chunks(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}
async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const item of items) list.push(item);
  return list;
}
const csv = (text: string, size = 5, max?: number): Promise<RawRow[]> =>
  all(readCsv(chunks(Buffer.from(text), size), max));
const quote = (field: string): string => `"${field.replaceAll('"', '""')}"`;

test("any table written as CSV is read back, however the bytes are cut (property)", async () => {
  const field = fc
    .string({ unit: "grapheme", minLength: 1, maxLength: 8 })
    .map((text) => `${text}",\n`.slice(0, text.length + 3));
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(field, field), { minLength: 1, maxLength: 5 }),
      fc.integer({ min: 1, max: 40 }),
      async (table, size) => {
        const text = `q,a\r\n${table.map((row) => row.map(quote).join(",")).join("\r\n")}`;
        const rows = await csv(text, size);
        expect(rows.map((row) => ("value" in row ? row.value : row.fault))).toEqual(table.map(([q, a]) => ({ q, a })));
      },
    ),
    { numRuns: 200 },
  );
});

test("a bad record of a CSV does not spoil those behind it, and lines are counted as an editor counts them", async () => {
  const text = 'q,a\n"two\nlines",1\n5" pipe,2\n5""x,3\n"x"y,4\n\ngood,5\n"open,6\n';
  for (const size of [1, 3, 1000]) {
    expect(await csv(text, size)).toEqual([
      { line: 2, value: { q: "two\nlines", a: "1" } },
      { line: 4, fault: expect.stringContaining("quote in its middle") },
      { line: 5, fault: expect.stringContaining("quote in its middle") },
      { line: 6, fault: expect.stringContaining("goes on behind its closing quote") },
      { line: 8, value: { q: "good", a: "5" } },
      { line: 9, fault: "opens a quote that is never closed" },
    ]);
  }
  expect(await csv(`q,a\n"${"x".repeat(100)}`, 10, 50)).toEqual([
    { line: 2, fault: expect.stringContaining("longer than 50 bytes") },
  ]);
  expect(await csv("q,q\n1,2\n")).toEqual([{ line: 1, fault: expect.stringContaining("twice") }]);
});

test("a line without an end takes no memory, and the lines behind a long one are read", async () => {
  const chunk = Buffer.alloc(2 ** 20, 0x61);
  async function* endless(): AsyncGenerator<Buffer> {
    for (let i = 0; i < 1024; i++) yield chunk;
    yield Buffer.from('\n{"a":1}\n');
  }
  const before = process.memoryUsage().rss;
  const rows = await all(readJsonl(endless()));
  expect(rows).toEqual([
    { line: 1, fault: expect.stringContaining("is longer than 16777216 bytes") },
    { line: 2, value: { a: 1 } },
  ]);
  expect(process.memoryUsage().rss - before).toBeLessThan(200 * 2 ** 20);
});

test("JSON lines are the same however they are cut", async () => {
  const bytes = Buffer.from('{"q":"é🎓"}\r\n\n"x\n{"q":2}');
  for (let size = 1; size < 12; size++) {
    expect(await all(readJsonl(chunks(bytes, size)))).toEqual([
      { line: 1, value: { q: "é🎓" } },
      { line: 3, fault: expect.stringContaining("not valid JSON") },
      { line: 4, value: { q: 2 } },
    ]);
  }
});

test("aliases, what beats what, and columns that have no other place", () => {
  expect(normalise({ problem: "p", solution: "s", answer: 5, source: "x", reasoning: "  " })).toEqual({
    question: "p",
    solution: "s",
    metadata: { answer: 5, source: "x" },
  });
  expect(normalise({ prompt: "p", completion: "<think>t</think>s" })).toEqual({
    question: "p",
    solution: "s",
    reasoning_trace: "t",
  });
  expect(normalise({ question: "q", answer: 12, id: 7 })).toEqual({ id: "7", question: "q", solution: "12" });
  const own = normalise(JSON.parse('{"question":"q","answer":"a","__proto__":{"x":1}}'));
  expect(JSON.stringify(own)).toBe('{"question":"q","solution":"a","metadata":{"__proto__":{"x":1}}}');
  let deep: unknown = 1;
  for (let i = 0; i < 5000; i++) deep = [deep];
  expect(normalise({ question: "q", answer: "a", deep })).toContain("nests deeper");
  expect(normalise({ question: "q".repeat(1_000_001), answer: "a" })).toContain("at most 1000000");
  expect(normalise({ question: "q", answer: 2 ** 60 })).toBe("answer is not a text");
  const turn = (role: string): object => ({ role, content: "x" });
  expect(normalise({ messages: [turn("user"), turn("assistant"), turn("user"), turn("assistant")] })).toContain(
    "one question of the user",
  );
  expect(normalise({ messages: [turn("tool")] })).toContain("has the role");
});

test("a form is the same however its bytes are cut, and files hold what looks like a boundary", async () => {
  const file = Buffer.from("a\r\n--b\n\r\n--\r\n\r\n-bb\0\xff", "latin1");
  const form = Buffer.concat([
    Buffer.from('preamble\r\n--bb \r\nContent-Disposition: form-data; name="name"\r\n\r\nx\r\n--bb\r\n'),
    Buffer.from(
      'content-type: text/csv\r\nContent-Disposition: form-data; name="file"; filename="a \\"b\\".csv"\r\n\r\n',
    ),
    file,
    Buffer.from("\r\n--bb\r\nContent-Disposition: form-data; name=empty\r\n\r\n\r\n--bb--\r\nepilogue"),
  ]);
  for (let size = 1; size <= 64; size++) {
    const parts: object[] = [];
    for await (const { body, ...part } of readMultipart(chunks(form, size), "bb")) {
      parts.push({ ...part, bytes: Buffer.concat(await all(body)).toString("latin1") });
    }
    expect(parts).toEqual([
      { name: "name", filename: undefined, contentType: undefined, bytes: "x" },
      { name: "file", filename: 'a "b".csv', contentType: "text/csv", bytes: file.toString("latin1") },
      { name: "empty", filename: undefined, contentType: undefined, bytes: "" },
    ]);
  }
  for (let end = 0; end < form.length - "--\r\nepilogue".length; end += 7) {
    const read = async (): Promise<void> => {
      for await (const part of readMultipart(chunks(form.subarray(0, end), 1000), "bb")) await all(part.body);
    };
    await expect(read(), String(end)).rejects.toMatchObject({ code: "invalid_request" });
  }
  expect(boundaryOf('multipart/form-data; charset=x; boundary="a b"')).toBe("a b");
});
