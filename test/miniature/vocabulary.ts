/**
 * A tokenizer with one token for every digit, operator, word and tag of the task, as Hugging Face files.
 *
 * Operators carry a space on either side, words one after them. So no token is the beginning of another and any sequence
 * of ids is what tokenising its text gives: sampled ids and re-tokenised text never differ. Tags are plain words, as in
 * the formats `stratos` and `r1`; turns are control tokens.
 */
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { toByteChars } from "../../src/text/byte-level.ts";
import { SYMBOLS } from "./chain.ts";
import { EXPLANATION_WORDS } from "./explanation.ts";
import { CHAT_TEMPLATE } from "./formats.ts";

const PAD = "<pad>";
const UNKNOWN = "<unk>";
const END_OF_TURN = "<end>";
const CONTROL = [PAD, UNKNOWN, END_OF_TURN, "<user>", "<assistant>"];
const TAGS = ["<think>", "</think>", "<solution>", "<explain>", "</explain>"];
const DIGITS = [..."0123456789"];
const SIGNS = [...SYMBOLS, "=", ";"].map((sign) => ` ${sign} `);
const WORDS = EXPLANATION_WORDS.map((word) => `${word} `);

/** Texts of the tokens; an id is an index. */
export const VOCABULARY: readonly string[] = [...CONTROL, ...TAGS, ...DIGITS, ...SIGNS, ".", ...WORDS];

export const PAD_ID = VOCABULARY.indexOf(PAD);
export const END_ID = VOCABULARY.indexOf(END_OF_TURN);

/** tokenizer.json: byte-level BPE without merges, in which every piece of the split is looked up whole. */
export function tokenizerFile(): object {
  const words = VOCABULARY.map((token) => (CONTROL.includes(token) ? token : toByteChars(token)));
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: CONTROL.map((content) => ({ id: VOCABULARY.indexOf(content), content, ...flags })),
    normalizer: null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Split", pattern: { Regex: PIECES }, behavior: "Isolated", invert: false },
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
    model: {
      type: "BPE",
      dropout: null,
      // Whatever is not of the task becomes this instead of vanishing.
      unk_token: UNKNOWN,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: false,
      ignore_merges: true,
      vocab: Object.fromEntries(words.map((word, id) => [word, id])),
      merges: [],
    },
  };
}

/** Tags, operators, words, digits; a stretch of anything else is a piece of its own. */
const PIECES = "</?[a-z]+>| [^\\sa-z0-9] |[a-z]+ |[0-9]|\\.";

export function tokenizerConfig(): object {
  return {
    tokenizer_class: "PreTrainedTokenizerFast",
    clean_up_tokenization_spaces: false,
    eos_token: END_OF_TURN,
    pad_token: PAD,
    unk_token: UNKNOWN,
    chat_template: CHAT_TEMPLATE,
  };
}

/** tokenizer.json and tokenizer_config.json, chat template included. */
export async function writeTokenizer(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  await writeFile(path.join(directory, "tokenizer.json"), JSON.stringify(tokenizerFile()));
  await writeFile(path.join(directory, "tokenizer_config.json"), JSON.stringify(tokenizerConfig()));
}
