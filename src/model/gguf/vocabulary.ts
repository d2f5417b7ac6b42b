import { fail } from "../../errors.ts";
import type { MetadataFields } from "./fields.ts";
import { quote } from "./metadata.ts";

/** Values of `tokenizer.ggml.token_type`. */
export const TOKEN_TYPE = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

export interface Vocabulary {
  /** Texts by id, without the padding at the end. */
  tokens: string[];
  /** By id; all `normal` when the file has none. */
  types: readonly number[];
  scores: readonly number[] | undefined;
  ids: ReadonlyMap<string, number>;
  /** Special ids the metadata names; out-of-range ones count as absent, as in llama.cpp. */
  bos: number | undefined;
  eos: number | undefined;
  unknown: number | undefined;
  pad: number | undefined;
}

/** Errors: `invalid_checkpoint` when lists differ in length or a token occurs twice. */
export function readVocabulary(fields: MetadataFields, label: string): Vocabulary {
  const all = fields.strings("tokenizer.ggml.tokens");
  if (!all || all.length === 0) throw fail("invalid_checkpoint", `${label}: tokenizer.ggml.tokens is missing or empty`);
  const types = listFor(fields, "tokenizer.ggml.token_type", all.length, label) ?? all.map(() => TOKEN_TYPE.normal);
  const scores = listFor(fields, "tokenizer.ggml.scores", all.length, label);
  let length = all.length;
  // Converters fill the vocabulary up to the embedding's rows; those ids stand for nothing.
  while (length > 0 && types[length - 1] === TOKEN_TYPE.unused && all[length - 1] === `[PAD${length - 1}]`) length--;
  const tokens = all.slice(0, length);
  const ids = new Map<string, number>();
  for (const [id, token] of tokens.entries()) {
    const first = ids.get(token);
    if (first !== undefined) {
      throw fail("invalid_checkpoint", `${label}: token ${quote(token)} has two ids, ${first} and ${id}`);
    }
    ids.set(token, id);
  }
  const special = (name: string): number | undefined => {
    const id = fields.number(`tokenizer.ggml.${name}_token_id`);
    return id !== undefined && Number.isInteger(id) && id >= 0 && id < tokens.length ? id : undefined;
  };
  return {
    tokens,
    types,
    scores,
    ids,
    bos: special("bos"),
    eos: special("eos"),
    unknown: special("unknown"),
    pad: special("padding"),
  };
}

function listFor(fields: MetadataFields, key: string, length: number, label: string): readonly number[] | undefined {
  const list = fields.numbers(key);
  if (list && list.length !== length) {
    throw fail("invalid_checkpoint", `${label}: ${key} has ${list.length} entries for ${length} tokens`);
  }
  return list;
}

/** Texts that end a turn in the chat formats of the families we read; some files name only one of them as eos. */
const END_OF_TURN = [
  "<|im_end|>",
  "<|eot_id|>",
  "<|eom_id|>",
  "<end_of_turn>",
  "<|end|>",
  "<|endoftext|>",
  "<|end_of_text|>",
];

/** All ids that end a turn or the text, the tokenizer's own first. */
export function endIds(fields: MetadataFields, vocabulary: Vocabulary): number[] {
  const named = ["eot", "eom"].map((name) => fields.number(`tokenizer.ggml.${name}_token_id`));
  const byText = END_OF_TURN.map((text) => vocabulary.ids.get(text)).filter(
    (id) => id !== undefined && vocabulary.types[id] === TOKEN_TYPE.control,
  );
  const inRange = [vocabulary.eos, ...named, ...byText].filter(
    (id): id is number => id !== undefined && Number.isInteger(id) && id >= 0 && id < vocabulary.tokens.length,
  );
  return [...new Set(inRange)];
}
