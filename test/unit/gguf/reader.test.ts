import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { PreceptorError } from "../../../src/errors.ts";
import { readGguf } from "../../../src/model/gguf/reader.ts";
import { ggufFromCheckpoint } from "./from-checkpoint.ts";
import { encodeGguf, type GgufSpec, type GgufTensorSpec, text, texts, u32 } from "./write-gguf.ts";

const root = mkdtempSync(join(tmpdir(), "preceptor-gguf-reader-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

function read(bytes: Uint8Array, name = "model.gguf") {
  const path = join(root, name);
  writeFileSync(path, bytes);
  return readGguf(path);
}

const tensor = (overrides: Partial<GgufTensorSpec> = {}): GgufTensorSpec => ({
  name: "t",
  type: "F32",
  shape: [2, 8],
  data: new Uint8Array(64),
  ...overrides,
});
const spec = (overrides: Partial<GgufSpec> = {}): GgufSpec => ({
  metadata: { "general.architecture": text("llama"), n: u32(3), list: texts(["a", "ß"]) },
  tensors: [tensor()],
  ...overrides,
});

test("metadata and tensors are read", () => {
  const file = read(encodeGguf(spec()));
  expect(Object.fromEntries(file.metadata)).toEqual({ "general.architecture": "llama", n: 3, list: ["a", "ß"] });
  const found = file.tensors.get("t")!;
  expect(found).toMatchObject({ type: "F32", shape: [2, 8], bytes: 64 });
  expect(found.offset % 32).toBe(0);
  expect(found.offset + 64).toBe(file.fileBytes);
});

test("version 2 is read", () => {
  expect(read(encodeGguf(spec({ version: 2 }))).tensors.size).toBe(1);
});

const huge = 2n ** 61n;
const WRONG: [string, string, string, GgufSpec][] = [
  ["version 1", "unsupported_checkpoint", "version 1", spec({ version: 1 })],
  ["big-endian", "unsupported_checkpoint", "big-endian", spec({ version: 0x03000000 })],
  ["a tensor count beyond any file", "invalid_checkpoint", "tensors", spec({ tensorCount: huge })],
  ["a plausible but wrong tensor count", "invalid_checkpoint", "tensor", spec({ tensorCount: 60_000n })],
  ["a key count beyond any file", "invalid_checkpoint", "metadata", spec({ keyCount: huge })],
  ["a plausible but wrong key count", "invalid_checkpoint", "metadata", spec({ keyCount: 60_000n })],
  ["an unknown tensor type", "invalid_checkpoint", "type 99", spec({ tensors: [tensor({ type: 99 })] })],
  ["a known type that is not built", "unsupported_checkpoint", "IQ2_XXS", spec({ tensors: [tensor({ type: 16 })] })],
  ["an offset past the end", "invalid_checkpoint", "truncated", spec({ tensors: [tensor({ offset: 4096n })] })],
  ["an absurd offset", "invalid_checkpoint", "offset", spec({ tensors: [tensor({ offset: huge })] })],
  ["an unaligned offset", "invalid_checkpoint", "aligned", spec({ tensors: [tensor({ offset: 3n })] })],
  ["a shape past the end", "invalid_checkpoint", "truncated", spec({ tensors: [tensor({ shape: [4, 1024] })] })],
  ["a zero dimension", "invalid_checkpoint", "shape", spec({ tensors: [tensor({ shape: [0, 8] })] })],
  ["five dimensions", "invalid_checkpoint", "5 dimensions", spec({ tensors: [tensor({ shape: [1, 1, 1, 2, 8] })] })],
  ["half a block", "invalid_checkpoint", "blocks of 32", spec({ tensors: [tensor({ type: "Q8_0", shape: [2, 8] })] })],
  ["overlap", "invalid_checkpoint", "overlap", spec({ tensors: [tensor(), tensor({ name: "u", offset: 32n })] })],
  ["a name twice", "invalid_checkpoint", "twice", spec({ tensors: [tensor(), tensor()] })],
  ["a split file", "unsupported_checkpoint", "split", spec({ metadata: { "split.count": u32(2) } })],
  ["a bad alignment", "invalid_checkpoint", "alignment", spec({ metadata: { "general.alignment": u32(33) } })],
];

test.each(WRONG)("%s is refused as %s", (_, code, words, wrong) => {
  const error = refusal(() => read(encodeGguf(wrong)));
  expect(error).toMatchObject({ code });
  expect(error.message).toContain(words);
  expect(error.message).toContain("model.gguf");
});

test("a part of a split file is known by its name", () => {
  const error = refusal(() => read(encodeGguf(spec()), "m-00002-of-00003.gguf"));
  expect(error).toMatchObject({ code: "unsupported_checkpoint" });
  expect(read(encodeGguf(spec()), "m-00001-of-00001.gguf").tensors.size).toBe(1);
});

test("other files are refused", () => {
  for (const bytes of [new Uint8Array(0), Buffer.from("GG"), Buffer.from("PK\x03\x04 not a model at all")]) {
    expect(refusal(() => read(bytes))).toMatchObject({ code: "invalid_checkpoint" });
  }
});

test("a truncated file is refused, and any change of a byte reads or is refused, quickly", () => {
  const bytes = encodeGguf(spec());
  for (let length = 0; length < bytes.length; length += 1 + (length >> 5)) {
    expect(refusal(() => read(bytes.subarray(0, length)))).toBeInstanceOf(PreceptorError);
  }
  fc.assert(
    fc.property(fc.nat(bytes.length - 1), fc.nat(255), (at, value) => {
      const changed = Uint8Array.from(bytes);
      changed[at] = value;
      try {
        read(changed);
      } catch (error) {
        expect(error).toBeInstanceOf(PreceptorError);
      }
    }),
    { numRuns: 200 },
  );
});

test("a real vocabulary's header survives", () => {
  const golden = fileURLToPath(new URL("../../golden/models/llama", import.meta.url));
  expect(read(encodeGguf(ggufFromCheckpoint(golden))).metadata.get("tokenizer.ggml.tokens")).toHaveLength(512);
});

function refusal(action: () => unknown): Error {
  try {
    action();
  } catch (error) {
    return error as Error;
  }
  throw new Error("it was accepted");
}
