import { expect, test } from "vitest";
import { createWriter, type Writer } from "../../../src/graph/proto/wire.ts";

const bytes = (write: (w: Writer) => void): number[] => {
  const w = createWriter();
  write(w);
  return [...w.finish()];
};

/** Examples of the protocol buffers documentation ("Encoding"). */
test("varints, strings and nested messages", () => {
  expect(bytes((w) => w.int(1, 150))).toEqual([0x08, 0x96, 0x01]);
  expect(bytes((w) => w.string(2, "testing"))).toEqual([0x12, 0x07, ...Buffer.from("testing")]);
  expect(bytes((w) => w.message(3, (child) => child.int(1, 150)))).toEqual([0x1a, 0x03, 0x08, 0x96, 0x01]);
});

test("negative numbers take ten bytes, field numbers above 15 two", () => {
  expect(bytes((w) => w.int(1, -2))).toEqual([0x08, 0xfe, ...new Array(8).fill(0xff), 0x01]);
  expect(bytes((w) => w.int(20, 7))).toEqual([0xa0, 0x01, 0x07]);
  expect(bytes((w) => w.int(1, 2 ** 40))).toEqual([0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20]);
});

test("floats are little-endian, and a buffer grows as needed", () => {
  expect(bytes((w) => w.float(2, -2))).toEqual([0x15, 0, 0, 0, 0xc0]);
  const long = bytes((w) => w.bytes(1, new Uint8Array(1000).fill(5)));
  expect(long).toHaveLength(1003);
  expect(long.slice(3).every((b) => b === 5)).toBe(true);
});
