import { fail } from "../../errors.ts";
import type { Architecture } from "./architecture.ts";
import { byteLevelTokenizer } from "./byte-level-tokenizer.ts";
import { metadataFields } from "./fields.ts";
import { quote } from "./metadata.ts";
import type { GgufFile } from "./reader.ts";
import { sentencePieceTokenizer } from "./sentencepiece-tokenizer.ts";
import { endIds, readVocabulary, TOKEN_TYPE, type Vocabulary } from "./vocabulary.ts";

/** What the two kinds of tokenizer decide; the rest of tokenizer.json is common. */
export interface TokenizerParts {
  /** Texts by id as they stand in the model's vocabulary. */
  tokens: readonly string[];
  merges: readonly [string, string][];
  normalizer: object | null;
  preTokenizer: object | null;
  decoder: object;
  model: { unk_token: string | null; fuse_unk: boolean; byte_fallback: boolean; ignore_merges: boolean };
  addBosByDefault: boolean;
}

export interface TokenizerFiles {
  /** Text of tokenizer.json. */
  tokenizer: string;
  /** tokenizer_config.json */
  config: Record<string, unknown>;
  bos: number | undefined;
  /** Ids that end a turn or the text, the tokenizer's own first. */
  eos: number[];
  pad: number | undefined;
}

/** Rebuilds the tokenizer from metadata. Errors: `invalid_checkpoint`, `unsupported_checkpoint` (by name). */
export function buildTokenizer(file: GgufFile, architecture: Architecture): TokenizerFiles {
  const fields = metadataFields(file);
  const vocabulary = readVocabulary(fields, file.label);
  if (vocabulary.tokens.length > architecture.vocab) {
    throw fail(
      "invalid_checkpoint",
      `${file.label}: ${vocabulary.tokens.length} tokens, but the embedding has only ${architecture.vocab} rows`,
    );
  }
  const kind = fields.string("tokenizer.ggml.model");
  const parts = partsOf(kind, file, architecture, vocabulary);
  const addBos =
    (fields.boolean("tokenizer.ggml.add_bos_token") ?? parts.addBosByDefault) && vocabulary.bos !== undefined;
  const addEos = (fields.boolean("tokenizer.ggml.add_eos_token") ?? false) && vocabulary.eos !== undefined;
  const text = (id: number | undefined): string | null => (id === undefined ? null : (parts.tokens[id] ?? null));
  const template = fields.string("tokenizer.chat_template");
  return {
    tokenizer: serialise(parts, vocabulary, addBos ? vocabulary.bos : undefined, addEos ? vocabulary.eos : undefined),
    config: {
      tokenizer_class: "PreTrainedTokenizerFast",
      add_bos_token: addBos,
      add_eos_token: addEos,
      bos_token: text(vocabulary.bos),
      eos_token: text(vocabulary.eos),
      pad_token: text(vocabulary.pad),
      unk_token: parts.model.unk_token ?? text(vocabulary.unknown),
      clean_up_tokenization_spaces: false,
      model_max_length: architecture.contextLength,
      ...(template === undefined ? {} : { chat_template: template }),
    },
    bos: vocabulary.bos,
    eos: endIds(fields, vocabulary),
    pad: vocabulary.pad,
  };
}

function partsOf(kind: string | undefined, file: GgufFile, a: Architecture, vocabulary: Vocabulary): TokenizerParts {
  const fields = metadataFields(file);
  if (kind === "gpt2") return byteLevelTokenizer(fields, vocabulary, a.name, file.label);
  if (kind === "llama") return sentencePieceTokenizer(fields, vocabulary, a.name);
  throw fail(
    "unsupported_checkpoint",
    kind === undefined
      ? `${file.label}: has no tokenizer (tokenizer.ggml.model is missing)`
      : `${file.label}: tokenizer ${quote(kind)} is not supported; "gpt2" (byte-level BPE) and "llama" (SentencePiece) are`,
  );
}

/** By hand where objects would not do: a vocabulary may contain "__proto__", and numeric keys would be reordered. */
function serialise(
  parts: TokenizerParts,
  vocabulary: Vocabulary,
  bos: number | undefined,
  eos: number | undefined,
): string {
  const vocab = parts.tokens.map((token, id) => `${JSON.stringify(token)}:${id}`).join(",");
  const { unk_token, fuse_unk, byte_fallback, ignore_merges } = parts.model;
  const model = [
    '"type":"BPE","dropout":null,"continuing_subword_prefix":null,"end_of_word_suffix":null',
    `"unk_token":${JSON.stringify(unk_token)}`,
    `"fuse_unk":${fuse_unk},"byte_fallback":${byte_fallback},"ignore_merges":${ignore_merges}`,
    `"vocab":{${vocab}}`,
    `"merges":${JSON.stringify(parts.merges)}`,
  ];
  const fields = [
    '"version":"1.0","truncation":null,"padding":null',
    `"added_tokens":${JSON.stringify(addedTokens(parts, vocabulary))}`,
    `"normalizer":${JSON.stringify(parts.normalizer)}`,
    `"pre_tokenizer":${JSON.stringify(parts.preTokenizer)}`,
    `"post_processor":${JSON.stringify(postProcessor(parts.tokens, bos, eos))}`,
    `"decoder":${JSON.stringify(parts.decoder)}`,
    `"model":{${model.join(",")}}`,
  ];
  return `{${fields.join(",\n")}}\n`;
}

/** Control and unknown tokens are special; user-defined ones are matched as a whole but are ordinary text. */
function addedTokens(parts: TokenizerParts, vocabulary: Vocabulary): object[] {
  const added: object[] = [];
  for (const [id, content] of parts.tokens.entries()) {
    const type = vocabulary.types[id];
    const special = type === TOKEN_TYPE.control || type === TOKEN_TYPE.unknown;
    if (content === "" || (!special && type !== TOKEN_TYPE.userDefined)) continue;
    added.push({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special });
  }
  return added;
}

function postProcessor(tokens: readonly string[], bos: number | undefined, eos: number | undefined): object | null {
  if (bos === undefined && eos === undefined) return null;
  const special = (id: number | undefined, type: number): object[] =>
    id === undefined ? [] : [{ SpecialToken: { id: tokens[id], type_id: type } }];
  const ids = [bos, eos].filter((id) => id !== undefined);
  const first = [...special(bos, 0), { Sequence: { id: "A", type_id: 0 } }, ...special(eos, 0)];
  const second = [...special(bos, 1), { Sequence: { id: "B", type_id: 1 } }, ...special(eos, 1)];
  return {
    type: "TemplateProcessing",
    single: first,
    pair: [...first, ...second],
    special_tokens: Object.fromEntries(
      ids.map((id) => [tokens[id], { id: tokens[id], ids: [id], tokens: [tokens[id]] }]),
    ),
  };
}
