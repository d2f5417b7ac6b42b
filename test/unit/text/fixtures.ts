import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { BYTE_CHARS } from "../../../src/text/byte-level.ts";
import { type LoadedModel, loadModel } from "../../../src/text/loaded-model.ts";

export const GOLDEN = new URL("../../golden/", import.meta.url).pathname;

/** Qwen2's pattern without its digit rule. */
export const SPLIT =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

export interface Flags {
  special?: boolean;
  normalized?: boolean;
  lstrip?: boolean;
  rstrip?: boolean;
  single_word?: boolean;
}

/** Added tokens get ids after the vocabulary, in order. */
export function byteLevelTokenizer(added: Record<string, Flags> = {}, changes: Record<string, unknown> = {}): object {
  const merges = [
    ["t", "h"],
    ["th", "e"],
    ["Ġ", "the"],
    ["i", "n"],
    ["Ċ", "Ċ"],
    ["<", "|"],
    ["|", ">"],
    ["Ã", "©"],
  ] as const;
  const tokens = [...BYTE_CHARS, ...merges.map(([a, b]) => a + b)];
  return {
    version: "1.0",
    added_tokens: Object.entries(added).map(([content, flags], i) => ({
      id: tokens.length + i,
      content,
      special: true,
      normalized: false,
      ...flags,
    })),
    normalizer: { type: "NFC" },
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Split", pattern: { Regex: SPLIT }, behavior: "Isolated", invert: false },
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: null,
    decoder: { type: "ByteLevel" },
    model: { type: "BPE", vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges },
    ...changes,
  };
}

/** As Llama 2's: `▁` for spaces, one put in front, byte fallback, control tokens inside the vocabulary. */
export function sentencePieceTokenizer(
  changes: Record<string, unknown> = {},
  model: Record<string, unknown> = {},
): object {
  const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`);
  const chars = [..."▁abcdehilnorstw<>/[]INST.,!\n"].filter((char, i, all) => all.indexOf(char) === i);
  const merges = ["▁ ▁", "t h", "th e", "▁ the", "▁ h", "i n", "▁ in", "< /", "</ s", "</s >"];
  const tokens = ["<unk>", "<s>", "</s>", ...bytes, ...chars, ...merges.map((merge) => merge.replace(" ", ""))];
  const vocab: Record<string, number> = {};
  for (const token of tokens) vocab[token] ??= Object.keys(vocab).length;
  return {
    version: "1.0",
    added_tokens: ["<unk>", "<s>", "</s>"].map((content, id) => ({ id, content, special: true, normalized: false })),
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "Prepend", prepend: "▁" },
        { type: "Replace", pattern: { String: " " }, content: "▁" },
      ],
    },
    pre_tokenizer: null,
    post_processor: {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      special_tokens: { "<s>": { id: "<s>", ids: [1], tokens: ["<s>"] } },
    },
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        { type: "Strip", content: " ", start: 1, stop: 0 },
      ],
    },
    model: { type: "BPE", unk_token: "<unk>", fuse_unk: true, byte_fallback: true, vocab, merges, ...model },
    ...changes,
  };
}

/** A model directory that lives as long as the test. */
export function writeModel(files: Record<string, object | string>): string {
  const directory = mkdtempSync(join(tmpdir(), "preceptor-text-"));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(join(directory, name), typeof content === "string" ? content : JSON.stringify(content));
  }
  return directory;
}

/** The model as the worker holds it, without the thread. */
export function loadFixture(files: Record<string, object | string>): Promise<LoadedModel> {
  return loadModel(writeModel(files), () => undefined);
}

/** The bytes each token covers, as text: shows ids and offsets at once. */
export function pieces({ text, ends }: { text: string; ends: Int32Array }): string[] {
  const bytes = Buffer.from(text);
  return Array.from(ends, (end, i) => bytes.subarray(ends[i - 1] ?? 0, end).toString());
}
