import { readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { PreceptorError } from "../../../src/errors.ts";
import type { TensorLocation } from "../../../src/model/checkpoint.ts";
import { readSafetensorsHeader } from "../../../src/model/safetensors.ts";
import { writeSafetensors } from "../../../src/model/safetensors-write.ts";
import { readTensor } from "../../../src/model/tensor-data.ts";
import { GOLDEN, rawSafetensors, temporaryDirectory } from "./fixture.ts";

async function readBytes(bytes: Uint8Array) {
  const file = path.join(await temporaryDirectory(), "model.safetensors");
  await writeFile(file, bytes);
  return readSafetensorsHeader(file, "model.safetensors");
}

const entry = (dtype: unknown, shape: unknown, offsets: unknown) => ({ dtype, shape, data_offsets: offsets });
const EIGHT = new Uint8Array(8);

test("reads what the format allows: metadata, padding, scalars, empty tensors", async () => {
  const header = {
    __metadata__: { format: "pt", __proto__: "x" },
    a: entry("F32", [], [0, 4]),
    empty: entry("BF16", [0, 7], [4, 4]),
    b: entry("F16", [2, 1], [4, 8]),
  };
  const file = await readBytes(rawSafetensors(`${JSON.stringify(header)}   `, EIGHT));
  expect(file.metadata).toMatchObject({ format: "pt" });
  expect([...file.tensors.keys()].sort()).toEqual(["a", "b", "empty"]);
  const { offset, bytes } = file.tensors.get("b") as TensorLocation;
  expect(offset + bytes).toBe(file.bytes);
});

describe("a header that lies is refused", () => {
  const a = entry("F32", [1], [0, 4]);
  const cases: [name: string, header: unknown, message: RegExp, code?: string, length?: bigint][] = [
    ["past the end", { a: entry("F32", [4], [0, 16]) }, /ends at byte .* but the file has/],
    ["overlap", { a, b: entry("F32", [1], [2, 6]), c: entry("I8", [2], [6, 8]) }, /overlaps/],
    ["the same bytes twice", { a, b: entry("F32", [1], [0, 4]), c: entry("F32", [1], [4, 8]) }, /overlaps/],
    ["hole", { a, b: entry("I8", [2], [6, 8]) }, /hole/],
    ["bytes of no tensor", { a }, /4 bytes that belong to no tensor/],
    ["length against shape", { a: entry("F32", [1], [0, 8]) }, /takes 4 bytes but data_offsets span 8/],
    ["reversed offsets", { a: entry("F32", [1], [8, 4]) }, /data_offsets/],
    ["negative offset", { a: entry("F32", [1], [-4, 0]) }, /data_offsets/],
    ["negative shape", { a: entry("F32", [-1, -2], [0, 8]) }, /shape/],
    ["fractional shape", { a: entry("F32", [0.5], [0, 2]) }, /shape/],
    ["shape beyond 2^53", { a: entry("F32", [2 ** 53], [0, 8]) }, /shape/],
    ["product beyond 2^53", { a: entry("F32", [2 ** 40, 2 ** 40], [0, 8]) }, /too large/],
    ["shape of a thousand dimensions", { a: entry("I8", Array(1000).fill(1), [0, 1]) }, /shape/],
    ["shape as string", { a: entry("F32", "2", [0, 8]) }, /shape/],
    ["unknown dtype", { a: entry("Q4", [2], [0, 8]) }, /dtype "Q4" is not supported/, "unsupported_checkpoint"],
    ["dtype of Object", { a: entry("constructor", [2], [0, 8]) }, /dtype/, "unsupported_checkpoint"],
    ["entry is a list", { a: [1, 2] }, /not an object/],
    ["three offsets", { a: entry("F32", [2], [0, 4, 8]) }, /data_offsets/],
    ["header is a list", [], /holds no JSON object/],
    ["header is not JSON", "{", /not valid JSON/],
    ["header is not UTF-8", "\ud800", /not valid JSON/],
    [
      "a name twice",
      '{"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"\\u0061":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}',
      /twice/,
    ],
    ["header length past the end", { a }, /truncated/, "invalid_checkpoint", 1n << 40n],
    ["header length of 2^64 - 1", { a }, /truncated/, "invalid_checkpoint", (1n << 64n) - 1n],
    ["header length 0", { a }, /not valid JSON/, "invalid_checkpoint", 0n],
  ];
  test.each(cases)("%s", async (_name, header, message, code = "invalid_checkpoint", length) => {
    await expect(readBytes(rawSafetensors(header, EIGHT, length))).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });

  test("a header longer than any real one, in a file that is long enough (sparse)", async () => {
    const bytes = new Uint8Array(40 * 1024 * 1024);
    new DataView(bytes.buffer).setBigUint64(0, 39n * 1024n * 1024n, true);
    await expect(readBytes(bytes)).rejects.toThrow(/at most 33554432 are read/);
  });

  test("deep nesting", async () => {
    const deep = `{"a":{"dtype":${"[".repeat(200_000)}${"]".repeat(200_000)},"shape":[],"data_offsets":[0,1]}}`;
    await expect(readBytes(rawSafetensors(deep, EIGHT))).rejects.toBeInstanceOf(PreceptorError);
  });
});

test("every truncation of a real file is refused", async () => {
  const whole = await readFile(path.join(GOLDEN, "llama/model.safetensors"));
  const cuts = [0, 1, 7, 8, 9, 100, 2000, 3015, 3016, 3017, whole.length - 1];
  for (const length of cuts) {
    await expect(readBytes(whole.subarray(0, length)), `cut at ${length}`).rejects.toBeInstanceOf(PreceptorError);
  }
  await expect(readBytes(Buffer.concat([whole, Buffer.from([0])]))).rejects.toThrow(/belong to no tensor/);
});

test("no mutation of a header does worse than a PreceptorError, and what is accepted lies inside the file", async () => {
  const valid = rawSafetensors({ a: entry("F32", [1], [0, 4]), b: entry("BF16", [2], [4, 8]) }, EIGHT);
  const file = path.join(await temporaryDirectory(), "model.safetensors");
  const mutation = fc.record({ at: fc.nat(valid.length - 1), byte: fc.nat(255) });
  let refused = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(mutation, { minLength: 1, maxLength: 4 }), async (mutations) => {
      const bytes = valid.slice();
      for (const { at, byte } of mutations) bytes[at] = byte;
      await writeFile(file, bytes);
      try {
        const { tensors } = await readSafetensorsHeader(file);
        for (const { offset, bytes: length } of tensors.values()) {
          expect(offset).toBeGreaterThanOrEqual(8);
          expect(offset + length).toBeLessThanOrEqual(bytes.length);
        }
      } catch (error) {
        refused++;
        expect(error).toBeInstanceOf(PreceptorError);
      }
    }),
    { numRuns: 200 },
  );
  expect(refused).toBeGreaterThan(50);
});

test("no JSON in place of a header does worse either", async () => {
  const file = path.join(await temporaryDirectory(), "model.safetensors");
  const number = fc.oneof(fc.integer(), fc.double(), fc.constant(2 ** 53), fc.constant(-0));
  const anyEntry = fc.record({
    dtype: fc.oneof(fc.constantFrom("F32", "BF16", "toString"), fc.jsonValue()),
    shape: fc.oneof(fc.array(number, { maxLength: 3 }), fc.jsonValue()),
    data_offsets: fc.oneof(fc.array(number, { maxLength: 3 }), fc.jsonValue()),
  });
  const header = fc.oneof(fc.jsonValue(), fc.dictionary(fc.oneof(fc.string(), fc.constant("__proto__")), anyEntry));
  await fc.assert(
    fc.asyncProperty(header, async (value) => {
      await writeFile(file, rawSafetensors(value, EIGHT));
      const outcome = await readSafetensorsHeader(file).catch((error: unknown) => error);
      // Eight bytes of data can only be covered by tensors of eight bytes in all.
      if (!(outcome instanceof PreceptorError)) {
        expect(
          [...(outcome as { tensors: Map<string, TensorLocation> }).tensors.values()].reduce((n, t) => n + t.bytes, 0),
        ).toBe(8);
      }
    }),
    { numRuns: 150 },
  );
});

describe("writer", () => {
  test("what is written is read back, widest dtype first, data aligned to 64 bytes", async () => {
    const file = path.join(await temporaryDirectory(), "out.safetensors");
    const f32 = Float32Array.from([1, -2, 3.5]);
    async function* halves() {
      yield Uint8Array.of(0x80);
      yield Uint8Array.of(0x3f, 0x00, 0xc0);
    }
    await writeSafetensors(
      file,
      [
        { name: "half", dtype: "BF16", shape: [2], data: halves },
        { name: "full", dtype: "F32", shape: [3, 1], data: new Uint8Array(f32.buffer) },
      ],
      { note: "x" },
    );
    const { tensors, metadata } = await readSafetensorsHeader(file);
    expect(metadata).toEqual({ note: "x" });
    const full = tensors.get("full") as TensorLocation;
    expect(full.offset % 64).toBe(0);
    expect(full.shape).toEqual([3, 1]);
    expect(await readTensor(full)).toEqual(f32);
    expect(await readTensor(tensors.get("half") as TensorLocation)).toEqual(Float32Array.from([1, -2]));
  });

  test("data that do not fit the shape leave neither file nor remains", async () => {
    const directory = await temporaryDirectory();
    const file = path.join(directory, "out.safetensors");
    for (const length of [3, 5]) {
      const tensor = { name: "a", dtype: "F32" as const, shape: [1], data: new Uint8Array(length) };
      await expect(writeSafetensors(file, [tensor])).rejects.toThrow(/has \d bytes of data where its shape asks for 4/);
    }
    expect(await readdir(directory)).toEqual([]);
  });

  test("a failed rewrite keeps the old file", async () => {
    const file = path.join(await temporaryDirectory(), "out.safetensors");
    const tensor = { name: "a", dtype: "U8" as const, shape: [1], data: Uint8Array.of(7) };
    await writeSafetensors(file, [tensor]);
    const before = await readFile(file);
    const failing = () => {
      throw new Error("source failed");
    };
    await expect(writeSafetensors(file, [{ ...tensor, data: failing }])).rejects.toThrow("source failed");
    expect(await readFile(file)).toEqual(before);
  });
});
