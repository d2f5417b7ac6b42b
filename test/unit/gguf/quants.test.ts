import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { TENSOR_TYPES, type TensorTypeName } from "../../../src/model/gguf/format.ts";
import { dequantise } from "../../../src/model/gguf/quants/dequantise.ts";

const fixture = JSON.parse(readFileSync(new URL("./fixtures/quants.json", import.meta.url), "utf8")) as {
  types: Record<string, { blocks: string; values: string }>;
};
const types = Object.values(TENSOR_TYPES);

test.each(types)("$name dequantises to the bit as the reference does", ({ name, block, bytes }) => {
  const stored = fixture.types[name];
  if (!stored) throw new Error(`no fixture for ${name}`);
  const source = new Uint8Array(Buffer.from(stored.blocks, "base64"));
  const expected = new Uint8Array(Buffer.from(stored.values, "base64"));
  const out = new Float32Array((source.length / bytes) * block);
  dequantise(name as TensorTypeName, source, out);
  expect(out.byteLength).toBe(expected.byteLength);
  expect(out).toEqual(new Float32Array(expected.buffer));
});

test("a half's extremes survive", () => {
  const out = new Float32Array(4);
  dequantise("F16", new Uint8Array([0x00, 0x7c, 0x00, 0xfc, 0x01, 0x00, 0x00, 0x80]), out);
  expect([...out]).toEqual([Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 2 ** -24, -0]);
});
