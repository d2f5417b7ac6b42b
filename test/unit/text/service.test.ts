import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, onTestFinished, test } from "vitest";
import { createTextService, type TextServiceOptions } from "../../../src/text/client.ts";
import type { TextService } from "../../../src/text/text.ts";
import { byteLevelTokenizer, sentencePieceTokenizer, writeModel } from "./fixtures.ts";

const services: TextService[] = [];
function start(options?: TextServiceOptions): TextService {
  const service = createTextService(options);
  services.push(service);
  return service;
}
afterEach(() => Promise.all(services.splice(0).map((service) => service.close())));

const PLAIN = { parseSpecial: false, addSpecial: false };
/** Takes exponential time on a run of a's. */
const EXPLOSIVE = byteLevelTokenizer(
  {},
  {
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Split", pattern: { Regex: "(a+)+$" }, behavior: "Isolated" },
        { type: "ByteLevel", use_regex: false },
      ],
    },
  },
);

test("several models live in one worker; calls in any order find theirs", async () => {
  const service = start();
  const [bytes, pieces] = await Promise.all([
    service.open(writeModel({ "tokenizer.json": byteLevelTokenizer() })),
    service.open(writeModel({ "tokenizer.json": sentencePieceTokenizer() })),
  ]);
  expect(bytes.tokenizerHash).not.toBe(pieces.tokenizerHash);
  const [a, b] = await Promise.all([bytes.encode("the in", PLAIN), pieces.encode("the in", PLAIN)]);
  expect(await bytes.decode(a.ids)).toBe("the in");
  expect(await pieces.decode(b.ids)).toBe("the in");
  expect(pieces.stripsSpace).toBe(true);
  expect(a.ids).toBeInstanceOf(Int32Array);
});

test("the hash is that of the content, however the file is written", async () => {
  const service = start();
  const file = byteLevelTokenizer() as { model: { merges: [string, string][] } };
  const respelled = {
    ...Object.fromEntries(Object.entries(file).reverse()),
    padding: { strategy: "BatchLongest" },
    model: { ...file.model, merges: file.model.merges.map((merge) => merge.join(" ")) },
  };
  const changed = { ...file, normalizer: { type: "NFD" } };
  const [one, same, other] = await Promise.all(
    [file, respelled, changed].map((content) => service.open(writeModel({ "tokenizer.json": content }))),
  );
  expect(one?.tokenizerHash).toMatch(/^sha256:[0-9a-f]{64}$/);
  expect(same?.tokenizerHash).toBe(one?.tokenizerHash);
  expect(other?.tokenizerHash).not.toBe(one?.tokenizerHash);
});

test("a text that takes too long fails alone; the worker is replaced", async () => {
  const service = start({ callLimitMs: 1_500 });
  const good = await service.open(writeModel({ "tokenizer.json": byteLevelTokenizer() }));
  const bad = await service.open(writeModel({ "tokenizer.json": EXPLOSIVE }));
  const slow = bad.encode(`${"a".repeat(60)}b`, PLAIN);
  const queued = good.encode("the", PLAIN);
  await expect(slow).rejects.toMatchObject({ code: "invalid_value" });
  expect((await queued.catch(() => good.encode("the", PLAIN))).ids).toHaveLength(1);
});

test("a model whose files changed behind a replaced worker is not mixed up", async () => {
  const service = start({ callLimitMs: 1_500 });
  const directory = writeModel({ "tokenizer.json": EXPLOSIVE });
  const model = await service.open(directory);
  await expect(model.encode(`${"a".repeat(60)}b`, PLAIN)).rejects.toMatchObject({ code: "invalid_value" });
  writeFileSync(join(directory, "tokenizer.json"), JSON.stringify(byteLevelTokenizer({ "<|new|>": {} })));
  await expect(model.encode("the", PLAIN)).rejects.toMatchObject({ code: "invalid_tokenizer" });
  rmSync(join(directory, "tokenizer.json"));
  await expect(model.encode("the", PLAIN)).rejects.toMatchObject({ code: "invalid_tokenizer" });
});

test("after close, calls are refused", async () => {
  const service = createTextService();
  onTestFinished(() => service.close());
  const model = await service.open(writeModel({ "tokenizer.json": byteLevelTokenizer() }));
  await service.close();
  await expect(model.encode("the", PLAIN)).rejects.toMatchObject({ code: "draining" });
});

describe("files that cannot be used are refused with a reason", () => {
  const good = byteLevelTokenizer() as { model: Record<string, unknown> };
  const model = (changes: object): object => ({ ...good, model: { ...good.model, ...changes } });
  const cases: [string, Record<string, object | string>, RegExp][] = [
    ["no tokenizer", {}, /no tokenizer\.json/],
    [
      "only SentencePiece's own file",
      { "tokenizer.model": "x" },
      /tokenizer\.model but no tokenizer\.json; convert it/,
    ],
    ["not JSON", { "tokenizer.json": "{" }, /broken/],
    ["a list", { "tokenizer.json": "[]" }, /broken/],
    ["no model", { "tokenizer.json": { added_tokens: [] } }, /model/],
    ["a Unigram model", { "tokenizer.json": model({ type: "Unigram", vocab: [["a", 0]] }) }, /Unigram/],
    ["a WordPiece model", { "tokenizer.json": model({ type: "WordPiece" }) }, /WordPiece/],
    ["a negative id", { "tokenizer.json": model({ vocab: { a: -1 } }) }, /the id -1/],
    ["an enormous id", { "tokenizer.json": model({ vocab: { a: 1e12 } }) }, /the id/],
    ["an empty vocabulary", { "tokenizer.json": model({ vocab: {} }) }, /vocab is empty/],
    ["a merge of three", { "tokenizer.json": model({ merges: ["a b c"] }) }, /merges\.0/],
    ["an added token without text", { "tokenizer.json": { ...good, added_tokens: [{ id: 1 }] } }, /added_tokens\.0/],
    ["an unknown normalizer", { "tokenizer.json": { ...good, normalizer: { type: "Precompiled" } } }, /Precompiled/],
    [
      "an unknown pre-tokenizer",
      { "tokenizer.json": { ...good, pre_tokenizer: { type: "UnicodeScripts" } } },
      /UnicodeScripts/,
    ],
    [
      "a bad pattern",
      { "tokenizer.json": { ...good, pre_tokenizer: { type: "Split", pattern: { Regex: "(" } } } },
      /regular expression/,
    ],
    ["an unknown decoder", { "tokenizer.json": { ...good, decoder: { type: "CTC" } } }, /CTC/],
    [
      "a post-processor with an unknown token",
      {
        "tokenizer.json": {
          ...good,
          post_processor: {
            type: "TemplateProcessing",
            single: [{ SpecialToken: { id: "<s>" } }, { Sequence: { id: "A" } }],
          },
        },
      },
      /unknown token <s>/,
    ],
    ["deep nesting", { "tokenizer.json": `{"model":${"[".repeat(200_000)}` }, /broken|cannot be loaded/],
    [
      "a broken configuration",
      { "tokenizer.json": good, "tokenizer_config.json": "nonsense" },
      /tokenizer_config\.json/,
    ],
    ["an enormous template", { "tokenizer.json": good, "chat_template.jinja": "x".repeat(600_000) }, /chat template/],
  ];

  test("each of them", async () => {
    const service = start();
    for (const [name, files, reason] of cases) {
      const error = await service.open(writeModel(files)).then(
        () => new Error(`${name} was accepted`),
        (failure: Error) => failure,
      );
      expect(error, name).toMatchObject({ code: "invalid_tokenizer" });
      expect(error.message, name).toMatch(reason);
    }
    expect((await service.open(writeModel({ "tokenizer.json": good }))).size).toBe(264);
  });
});
