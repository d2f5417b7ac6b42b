import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Tokenizer as ReferenceTokenizer } from "@huggingface/tokenizers";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { LoadedModel } from "../../../src/text/loaded-model.ts";
import { bytesOfId, decodeIds } from "../../../src/text/token-bytes.ts";
import { byteLevelTokenizer, GOLDEN, loadFixture, pieces, sentencePieceTokenizer } from "./fixtures.ts";

const SPECIAL = { parseSpecial: true, addSpecial: false };
const PLAIN = { parseSpecial: false, addSpecial: false };

const golden = JSON.parse(readFileSync(join(GOLDEN, "models/qwen2/tokenizer.json"), "utf8")) as object;

/** Text with what tokenizers stumble over: spaces, marks, tags, other scripts, lone surrogates. */
const anyText = fc
  .array(
    fc.oneof(
      fc.string({ unit: "binary", maxLength: 8 }),
      fc.string({ unit: "grapheme", maxLength: 8 }),
      fc.constantFrom(
        " ",
        "  ",
        "\n\n",
        "▁",
        "\u0301",
        "é",
        "<|im_end|>",
        "<|im_start|>",
        "</s>",
        "the",
        "in",
        "\ud83d",
        "\0",
        "\ufeff",
        "12",
      ),
    ),
    { maxLength: 12 },
  )
  .map((parts) => parts.join(""));

/** Offsets never go back, end at the end, and lie on the bytes of the token they belong to. */
function expectSoundEnds(model: LoadedModel, text: string): void {
  const { ids, ends, text: normalised } = model.encode(text, PLAIN);
  const bytes = Buffer.from(normalised);
  expect(ends.at(-1) ?? 0).toBe(ids.length === 0 ? 0 : bytes.length);
  const wrong = ends.findIndex((end, i) => {
    const covered = bytes
      .subarray(ends[i - 1] ?? 0, end)
      .toString("latin1")
      .replaceAll("\xe2\x96\x81", " ");
    const own = Buffer.from(bytesOfId(model.tokenizer.bytes, ids[i] as number)).toString("latin1");
    // A space put in front is the only thing a token may have beyond its bytes of the text.
    return end < (ends[i - 1] ?? 0) || (own !== covered && own.replace(" ", "") !== covered);
  });
  expect(wrong).toBe(-1);
}

describe("byte-level BPE", () => {
  test("same ids as the reference implementation", async () => {
    const model = await loadFixture({ "tokenizer.json": golden });
    const reference = new ReferenceTokenizer(golden, {});
    fc.assert(
      fc.property(anyText, (text) => {
        const wellFormed = text.replace(/\p{Surrogate}/gu, "\ufffd");
        const { ids } = model.encode(text, SPECIAL);
        expect([...ids]).toEqual(reference.encode(wellFormed, { add_special_tokens: false }).ids);
      }),
      { numRuns: 150 },
    );
  });

  test("offsets cover the normalised bytes, ids decode to the normalised text, control tokens never come from plain text", async () => {
    const model = await loadFixture({ "tokenizer.json": golden });
    fc.assert(
      fc.property(anyText, (text) => {
        expectSoundEnds(model, text);
        const { ids, text: normalised } = model.encode(text, PLAIN);
        expect(normalised).toBe(text.replace(/\p{Surrogate}/gu, "\ufffd").normalize("NFC"));
        expect(decodeIds(model.tokenizer.bytes, ids, { stripsSpace: false })).toBe(normalised);
        expect(ids.every((id) => id > 2)).toBe(true);
      }),
      { numRuns: 150 },
    );
  });

  test("a token that lies in the vocabulary and could be merged is split in plain text", async () => {
    const file = byteLevelTokenizer({}) as { model: { vocab: Record<string, number> }; added_tokens: object[] };
    file.added_tokens = [{ id: file.model.vocab.the, content: "the", special: true, normalized: false }];
    const model = await loadFixture({ "tokenizer.json": file });
    expect(pieces(model.encode("in the", PLAIN))).toEqual(["in", " ", "th", "e"]);
    expect(pieces(model.encode("in the", SPECIAL))).toEqual(["in", " ", "the"]);
  });

  test("a whole word in the vocabulary needs no merges when the file says so", async () => {
    const file = byteLevelTokenizer() as { model: Record<string, unknown> & { vocab: Record<string, number> } };
    file.model.vocab.in = 1000;
    file.model.vocab.inthe = 1001;
    const with_ = await loadFixture({ "tokenizer.json": { ...file, model: { ...file.model, ignore_merges: true } } });
    const without = await loadFixture({ "tokenizer.json": file });
    expect([...with_.encode("inthe", PLAIN).ids]).toEqual([1001]);
    expect(pieces(without.encode("inthe", PLAIN))).toEqual(["in", "the"]);
  });

  test("a space put in front of the text takes no room in it", async () => {
    const model = await loadFixture({
      "tokenizer.json": byteLevelTokenizer({}, { pre_tokenizer: { type: "ByteLevel", add_prefix_space: true } }),
    });
    const encoded = model.encode("the the", PLAIN);
    expect(pieces(encoded)).toEqual(["the", " the"]);
    expect(encoded.ids[0]).toBe(encoded.ids[1]);
  });

  test("digits of every script stand alone where the file asks for it", async () => {
    const model = await loadFixture({
      "tokenizer.json": byteLevelTokenizer(
        {},
        {
          pre_tokenizer: {
            type: "Sequence",
            pretokenizers: [
              { type: "Digits", individual_digits: true },
              { type: "ByteLevel", add_prefix_space: false, use_regex: true },
            ],
          },
          model: {
            ...(byteLevelTokenizer() as { model: object }).model,
            merges: [
              ["1", "2"],
              ["Â", "½"],
              ["Â½", "Â½"],
            ],
            vocab: {
              ...(byteLevelTokenizer() as { model: { vocab: object } }).model.vocab,
              "12": 900,
              "Â½": 901,
              "Â½Â½": 902,
            },
          },
        },
      ),
    });
    expect(pieces(model.encode("12½½", PLAIN))).toEqual(["1", "2", "½", "½"]);
  });
});

describe("SentencePiece BPE", () => {
  test("the space in front, byte fallback and literal marks keep their places", async () => {
    const model = await loadFixture({ "tokenizer.json": sentencePieceTokenizer() });
    expect(pieces(model.encode("the  the", PLAIN))).toEqual(["the", "  ", "the"]);
    expect(pieces(model.encode("the in the", PLAIN))).toEqual(["the", " in", " the"]);
    expect(pieces(model.encode(" the", PLAIN))).toEqual([" ", "the"]);
    const accent = model.encode("é", PLAIN);
    expect([...accent.ids].slice(1)).toEqual([3 + 0xc3, 3 + 0xa9]);
    expect([...accent.ends]).toEqual([0, 1, 2]);
    expect(pieces(model.encode("a▁the", PLAIN))).toEqual(["", "a", "▁the"]);
  });

  test("text never becomes a control token, although merges lead there", async () => {
    const model = await loadFixture({ "tokenizer.json": sentencePieceTokenizer() });
    expect(pieces(model.encode("in</s>", PLAIN)).slice(-3)).toEqual(["in", "</s", ">"]);
    expect([...model.encode("in</s>", PLAIN).ids]).not.toContain(2);
    expect(model.encode("in</s>", SPECIAL).ids.at(-1)).toBe(2);
  });

  test("BOS comes from the post-processor when asked for, and is spelled out", async () => {
    const model = await loadFixture({ "tokenizer.json": sentencePieceTokenizer() });
    const encoded = model.encode("the", { parseSpecial: true, addSpecial: true });
    expect(encoded.text).toBe("<s>the");
    expect(pieces(encoded)).toEqual(["<s>", "the"]);
    expect(encoded.ids[0]).toBe(1);
  });

  test("a configuration may ask for BOS where the post-processor is silent", async () => {
    const model = await loadFixture({
      "tokenizer.json": sentencePieceTokenizer({ post_processor: null }),
      "tokenizer_config.json": { add_bos_token: true, bos_token: { content: "<s>" } },
    });
    expect(model.encode("the", { parseSpecial: true, addSpecial: true }).ids[0]).toBe(1);
    expect(model.encode("the", SPECIAL).ids).toHaveLength(1);
  });

  test("decoding gives the text back", async () => {
    const model = await loadFixture({ "tokenizer.json": sentencePieceTokenizer() });
    fc.assert(
      fc.property(anyText, (text) => {
        expectSoundEnds(model, text);
        const { ids, text: normalised } = model.encode(text, PLAIN);
        expect(decodeIds(model.tokenizer.bytes, ids, { stripsSpace: true })).toBe(normalised.replaceAll("▁", " "));
      }),
      { numRuns: 150 },
    );
  });

  test("cutting at spaces changes no id: the reference does not cut", async () => {
    const file = sentencePieceTokenizer();
    const model = await loadFixture({ "tokenizer.json": file });
    const reference = new ReferenceTokenizer(file, {});
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(..." the in </s>é▁\n"), maxLength: 30 }), (text) => {
        expect([...model.encode(text, SPECIAL).ids]).toEqual(reference.encode(text, { add_special_tokens: false }).ids);
      }),
      { numRuns: 150 },
    );
  });

  test("without byte fallback unknown characters are unknown tokens, one for a run of them", async () => {
    const model = await loadFixture({ "tokenizer.json": sentencePieceTokenizer({}, { byte_fallback: false }) });
    const encoded = model.encode("a日本b", PLAIN);
    expect(pieces(encoded)).toEqual(["", "a", "日本", "b"]);
    expect(encoded.ids[2]).toBe(0);
  });

  test("Metaspace puts its space in front of the first stretch only", async () => {
    const metaspace = { type: "Metaspace", replacement: "▁", prepend_scheme: "first", split: false };
    const model = await loadFixture({
      "tokenizer.json": sentencePieceTokenizer({ normalizer: null, pre_tokenizer: metaspace, decoder: metaspace }),
    });
    const { ids } = model.encode("the</s>the", SPECIAL);
    expect(Array.from(ids, (id) => Buffer.from(bytesOfId(model.tokenizer.bytes, id, true)).toString())).toEqual([
      " the",
      "</s>",
      "the",
    ]);
  });
});

test("white space that a pre-tokenizer removes belongs to the token after it", async () => {
  const model = await loadFixture({
    "tokenizer.json": byteLevelTokenizer(
      {},
      {
        pre_tokenizer: {
          type: "Sequence",
          pretokenizers: [{ type: "WhitespaceSplit" }, { type: "ByteLevel", use_regex: false }],
        },
      },
    ),
  });
  expect(pieces(model.encode("the   in\n", PLAIN))).toEqual(["the", "   in\n"]);
});

describe("added tokens", () => {
  test("ordinary ones match in plain text, the longest first", async () => {
    const added = { "<a>": { special: false }, "<a><a>": { special: false }, "<|x|>": {} };
    const model = await loadFixture({ "tokenizer.json": byteLevelTokenizer(added) });
    expect(pieces(model.encode("<a><a><a><|x|>", PLAIN))).toEqual(["<a><a>", "<a>", "<|", "x", "|>"]);
    expect(pieces(model.encode("<a><|x|>", SPECIAL))).toEqual(["<a>", "<|x|>"]);
  });

  test("white space that a token swallows is covered by it", async () => {
    const added = { "<|r|>": { rstrip: true }, "<|l|>": { lstrip: true } };
    const model = await loadFixture({ "tokenizer.json": byteLevelTokenizer(added) });
    expect(pieces(model.encode("in<|r|> \n in  <|l|> in", SPECIAL))).toEqual([
      "in",
      "<|r|> \n ",
      "in",
      "  <|l|>",
      " ",
      "in",
    ]);
  });

  test("a token for single words leaves longer words alone", async () => {
    const model = await loadFixture({
      "tokenizer.json": byteLevelTokenizer({ in: { special: false, single_word: true } }),
    });
    const id = model.encode("in", PLAIN).ids[0];
    expect(model.tokenizer.addedTokens[0]?.id).toBe(id);
    expect([...model.encode("inn", PLAIN).ids]).not.toContain(id);
  });

  test("tokens named by tokenizer_config.json are special, words among them are not", async () => {
    const model = await loadFixture({
      "tokenizer.json": byteLevelTokenizer({ "<eos>": { special: false } }),
      "tokenizer_config.json": { eos_token: "<eos>", pad_token: "!" },
    });
    const [eos] = model.eosIds;
    expect(bytesOfId(model.tokenizer.bytes, eos as number)).toHaveLength(0);
    expect([...model.encode("<eos>!", PLAIN).ids]).not.toContain(eos);
    expect(pieces(model.encode("the!", PLAIN))).toEqual(["the", "!"]);
  });
});

test("odd and large texts are encoded", async () => {
  const model = await loadFixture({ "tokenizer.json": golden });
  expect(model.encode("", PLAIN)).toMatchObject({ ids: new Int32Array(), ends: new Int32Array(), text: "" });
  expect(model.encode("\ud83d", PLAIN).text).toBe("\ufffd");
  for (const text of ["a".repeat(300_000), " ".repeat(300_000), "\0".repeat(1000), "\u0301".repeat(100_000)]) {
    const { ids, text: normalised } = model.encode(text, PLAIN);
    expect(decodeIds(model.tokenizer.bytes, ids, { stripsSpace: false })).toBe(normalised);
  }
});
