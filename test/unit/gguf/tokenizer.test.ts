import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Tokenizer } from "@huggingface/tokenizers";
import { afterAll, expect, test } from "vitest";
import { readArchitecture } from "../../../src/model/gguf/architecture.ts";
import { PRE_TOKENIZERS } from "../../../src/model/gguf/pre-tokenizers.ts";
import { readGguf } from "../../../src/model/gguf/reader.ts";
import { mergesFromScores } from "../../../src/model/gguf/sentencepiece-tokenizer.ts";
import { buildTokenizer } from "../../../src/model/gguf/tokenizer-json.ts";
import { ggufFromCheckpoint } from "./from-checkpoint.ts";
import { bool, encodeGguf, f32, f32s, type GgufSpec, type GgufValue, i32s, text, texts, u32 } from "./write-gguf.ts";

const root = mkdtempSync(join(tmpdir(), "preceptor-gguf-tokenizer-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const sentencepiece = JSON.parse(readFileSync(new URL("./fixtures/sentencepiece.json", import.meta.url), "utf8")) as {
  tokens: string[];
  types: number[];
  scores: number[];
  cases: { text: string; prefixed: number[]; plain: number[] }[];
};
const llama = ggufFromCheckpoint(fileURLToPath(new URL("../../golden/models/llama", import.meta.url)));

function build(spec: GgufSpec) {
  const path = join(root, "model.gguf");
  writeFileSync(path, encodeGguf(spec));
  const file = readGguf(path);
  const files = buildTokenizer(file, readArchitecture(file));
  const json = JSON.parse(files.tokenizer);
  return { files, json, tokenizer: new Tokenizer(json, files.config) };
}

function sentencePieceSpec(metadata: Record<string, GgufValue>): GgufSpec {
  const vocab = sentencepiece.tokens.length;
  return {
    metadata: {
      "general.architecture": text("llama"),
      "llama.block_count": u32(1),
      "llama.context_length": u32(64),
      "llama.embedding_length": u32(32),
      "llama.feed_forward_length": u32(32),
      "llama.attention.head_count": u32(2),
      "llama.attention.layer_norm_rms_epsilon": f32(1e-5),
      "tokenizer.ggml.model": text("llama"),
      "tokenizer.ggml.tokens": texts(sentencepiece.tokens),
      "tokenizer.ggml.scores": f32s(sentencepiece.scores),
      "tokenizer.ggml.token_type": i32s(sentencepiece.types),
      "tokenizer.ggml.bos_token_id": u32(1),
      "tokenizer.ggml.eos_token_id": u32(2),
      "tokenizer.ggml.unknown_token_id": u32(0),
      ...metadata,
    },
    tensors: [{ name: "token_embd.weight", type: "F32", shape: [vocab, 32], data: new Uint8Array(vocab * 128) }],
  };
}

test.each([
  ["prefixed", true],
  ["plain", false],
] as const)("SentencePiece ids (%s) equal llama.cpp's", (key, prefix) => {
  const { tokenizer, files } = build(sentencePieceSpec({ "tokenizer.ggml.add_space_prefix": bool(prefix) }));
  for (const one of sentencepiece.cases) {
    expect(tokenizer.encode(one.text).ids, JSON.stringify(one.text)).toEqual(one[key]);
    const plain = one.text.replaceAll(/<.*?>/g, "");
    const ids = tokenizer.encode(plain, { add_special_tokens: false }).ids;
    if (ids.length > 0) expect(tokenizer.decode(ids)).toBe(plain);
  }
  expect(files.config).toMatchObject({ bos_token: "<s>", eos_token: "</s>", unk_token: "<unk>", add_bos_token: true });
});

test("BOS and EOS are added as the file says", () => {
  const { tokenizer } = build(
    sentencePieceSpec({ "tokenizer.ggml.add_bos_token": bool(false), "tokenizer.ggml.add_eos_token": bool(true) }),
  );
  const ids = tokenizer.encode("the cat").ids;
  expect(ids.at(-1)).toBe(2);
  expect(ids).not.toContain(1);
});

test("merges follow the scores, and nothing merges into a control token", () => {
  const tokens = ["a", "b", "ab", "ba", "aba", "</s>", "</", "s>"];
  const types = [1, 1, 1, 1, 1, 3, 1, 1];
  const scores = [0, 0, -2, -1, -3, 0, 0, 0];
  expect(mergesFromScores(tokens, types, (id) => scores[id]!)).toEqual([
    ["b", "a"],
    ["a", "b"],
    ["ab", "a"],
    ["a", "ba"],
  ]);
});

test.each(Object.keys(PRE_TOKENIZERS))("pre-tokenizer %s loses nothing and joins what it cuts", (pre) => {
  const { tokenizer } = build({ ...llama, metadata: { ...llama.metadata, "tokenizer.ggml.pre": text(pre) } });
  const sample = "I'll pay 1234,5 €\tfor\r\n\r\n  the café's  日本語 ½ naïve_code(x){}… 😀\u0301 \n";
  const ids = tokenizer.encode(sample, { add_special_tokens: false }).ids;
  expect(tokenizer.decode(ids).normalize("NFC")).toBe(sample.normalize("NFC"));
});

test("types become added tokens: control is special, user-defined is text", () => {
  const types = (llama.metadata["tokenizer.ggml.token_type"] as unknown as { value: number[] }).value.slice();
  types[1] = 4;
  const { json, files } = build({
    ...llama,
    metadata: { ...llama.metadata, "tokenizer.ggml.token_type": i32s(types) },
  });
  expect(json.added_tokens).toMatchObject([
    { id: 0, content: "<|endoftext|>", special: true },
    { id: 1, content: "<|im_start|>", special: false },
    { id: 2, content: "<|im_end|>", special: true },
  ]);
  expect(files.eos).toEqual([2, 0]);
});

test("a vocabulary may hold any name", () => {
  const tokens = (llama.metadata["tokenizer.ggml.tokens"] as unknown as { value: string[] }).value.slice();
  tokens[479] = "__proto__";
  tokens[478] = "1";
  tokens[tokens.indexOf("1", 0)] = "constructor";
  const spec = {
    ...llama,
    metadata: { ...llama.metadata, "tokenizer.ggml.tokens": texts(tokens), "tokenizer.ggml.merges": texts([]) },
  };
  const { json } = build(spec);
  expect(Object.hasOwn(json.model.vocab, "__proto__")).toBe(true);
  expect(json.model.vocab.constructor).toBeTypeOf("number");
});

const WRONG: [string, string, Record<string, GgufValue>][] = [
  ["no tokens", "invalid_checkpoint", { "tokenizer.ggml.tokens": texts([]) }],
  ["tokens of numbers", "invalid_checkpoint", { "tokenizer.ggml.tokens": i32s([1, 2]) }],
  ["a token twice", "invalid_checkpoint", { "tokenizer.ggml.tokens": texts(Array(512).fill("x")) }],
  ["types for other tokens", "invalid_checkpoint", { "tokenizer.ggml.token_type": i32s([1]) }],
  [
    "more tokens than rows",
    "invalid_checkpoint",
    { "tokenizer.ggml.tokens": texts(Array.from({ length: 513 }, String)) },
  ],
  ["a merge of strangers", "invalid_checkpoint", { "tokenizer.ggml.merges": texts(["qqq zzz"]) }],
  ["a merge of one", "invalid_checkpoint", { "tokenizer.ggml.merges": texts(["a"]) }],
  ["an unknown pre-tokenizer", "unsupported_checkpoint", { "tokenizer.ggml.pre": text("constructor") }],
  ["another kind of tokenizer", "unsupported_checkpoint", { "tokenizer.ggml.model": text("bert") }],
];

test.each(WRONG)("%s: %s", (_, code, metadata) => {
  const types = metadata["tokenizer.ggml.tokens"] && !metadata["tokenizer.ggml.token_type"];
  const base = { ...llama.metadata };
  if (types) delete base["tokenizer.ggml.token_type"];
  expect(() => build({ ...llama, metadata: { ...base, ...metadata } })).toThrow(expect.objectContaining({ code }));
});
