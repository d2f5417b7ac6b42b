/** The event-stream reader, whatever the cuts and however large the lines. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { parseEvents, type ServerEvent } from "../../src/parse-events.ts";

async function* streamOf(chunks: Iterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield* chunks;
}

async function read(chunks: Iterable<Uint8Array>): Promise<ServerEvent[]> {
  const events: ServerEvent[] = [];
  for await (const event of parseEvents(streamOf(chunks))) events.push(event);
  return events;
}

const TEXT =
  ": hello\r\nevent: a\r\ndata: é1\r\ndata:2\r\n\r\n\r\ndata: x\r\rid: 3\ndata\n\ndata:  y\n\nevent: b\n\ndata: cut";
const EVENTS = [
  { event: "a", data: "é1\n2" },
  { event: "message", data: "x" },
  { event: "message", data: "" },
  { event: "message", data: " y" },
];

test("events are the same wherever the chunks are cut", async () => {
  const bytes = Buffer.from(TEXT);
  expect(await read(Array.from(bytes, (_, i) => bytes.subarray(i, i + 1)))).toEqual(EVENTS);
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(bytes.length), { maxLength: 6 }), async (cuts) => {
      const ends = [...cuts, bytes.length].sort((a, b) => a - b);
      expect(await read(ends.map((end, i) => bytes.subarray(ends[i - 1] ?? 0, end)))).toEqual(EVENTS);
    }),
  );
});

test("an event ends with its carriage return, whether a line feed follows or not", async () => {
  const events = parseEvents(
    (async function* () {
      yield Buffer.from("data: 1\r\n\r");
      await new Promise(() => undefined);
    })(),
  );
  expect((await events.next()).value).toEqual({ event: "message", data: "1" });
});

test("a line of 24 MB in small chunks is read in linear time", async () => {
  const chunk = Buffer.alloc(16 * 1024, "x");
  const chunks = [Buffer.from("data: "), ...Array.from({ length: 1536 }, () => chunk), Buffer.from("\n\n")];
  const started = performance.now();
  const [event] = await read(chunks);
  expect(event!.data).toHaveLength(24 * 1024 * 1024);
  // Looking through it anew with every chunk took a quarter of a minute.
  expect(performance.now() - started).toBeLessThan(5_000);
});

test("neither a line nor the lines of an event may be larger than the limit", async () => {
  const mebibyte = "x".repeat(1024 * 1024);
  function* without(end: string): Generator<Uint8Array> {
    yield Buffer.from("data: ");
    for (let i = 0; i < 70; i++) yield Buffer.from(mebibyte + end);
    yield Buffer.from("\n\n");
  }
  await expect(read(without(""))).rejects.toThrow("67108864 characters");
  await expect(read(without("\ndata: "))).rejects.toThrow("67108864 characters");
  // Events one after the other may.
  expect(await read(without("\n\ndata: "))).toHaveLength(71);
});
