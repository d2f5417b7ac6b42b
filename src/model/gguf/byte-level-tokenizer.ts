import { fail } from "../../errors.ts";
import { byteAlphabet } from "./byte-alphabet.ts";
import type { MetadataFields } from "./fields.ts";
import { quote } from "./metadata.ts";
import { defaultPreTokenizer, PRE_TOKENIZERS, type PreTokenizer } from "./pre-tokenizers.ts";
import type { TokenizerParts } from "./tokenizer-json.ts";
import { TOKEN_TYPE, type Vocabulary } from "./vocabulary.ts";

/** `tokenizer.ggml.model` "gpt2": byte-level BPE with merges, cut up by the pre-tokenizer the file names. */
export function byteLevelTokenizer(
  fields: MetadataFields,
  vocabulary: Vocabulary,
  architecture: string,
  label: string,
): TokenizerParts {
  const pre = choosePreTokenizer(fields, architecture, label);
  return {
    tokens: respell(vocabulary),
    merges: readMerges(fields, vocabulary, label),
    normalizer: pre.nfc ? { type: "NFC" } : null,
    preTokenizer: {
      type: "Sequence",
      pretokenizers: [
        ...pre.splits.map((pattern) => ({
          type: "Split",
          pattern: { Regex: pattern },
          behavior: "Isolated",
          invert: false,
        })),
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: { unk_token: null, fuse_unk: false, byte_fallback: false, ignore_merges: pre.ignoreMerges ?? false },
    addBosByDefault: pre.addBos ?? false,
  };
}

function choosePreTokenizer(fields: MetadataFields, architecture: string, label: string): PreTokenizer {
  const name = fields.string("tokenizer.ggml.pre") ?? "default";
  if (name === "default" || name === "") return defaultPreTokenizer(architecture);
  const pre = Object.hasOwn(PRE_TOKENIZERS, name) ? PRE_TOKENIZERS[name] : undefined;
  if (pre) return pre;
  throw fail(
    "unsupported_checkpoint",
    `${label}: pre-tokenizer ${quote(name)} is not supported; these are: ${Object.keys(PRE_TOKENIZERS).join(", ")}`,
  );
}

function readMerges(fields: MetadataFields, vocabulary: Vocabulary, label: string): [string, string][] {
  const merges = fields.strings("tokenizer.ggml.merges");
  if (!merges) throw fail("invalid_checkpoint", `${label}: tokenizer.ggml.merges is missing`);
  return merges.map((merge) => {
    const space = merge.indexOf(" ", 1);
    const left = merge.slice(0, space);
    const right = merge.slice(space + 1);
    // A merge into something that is no token would make text vanish.
    if (space < 1 || [left, right, left + right].some((token) => !vocabulary.ids.has(token))) {
      throw fail("invalid_checkpoint", `${label}: the merge ${quote(merge)} names a text that is no token`);
    }
    return [left, right];
  });
}

/**
 * Ordinary tokens are written in the byte alphabet. Some files spell a few in plain text; those are respelled, since
 * decoding looks every character up in the alphabet. Added tokens are plain text and stay.
 */
function respell(vocabulary: Vocabulary): string[] {
  const alphabet = byteAlphabet();
  const known = new Set(alphabet);
  return vocabulary.tokens.map((token, id) => {
    if (vocabulary.types[id] !== TOKEN_TYPE.normal || [...token].every((character) => known.has(character))) {
      return token;
    }
    const spelled = Array.from(new TextEncoder().encode(token), (byte) => alphabet[byte]).join("");
    return vocabulary.ids.has(spelled) ? token : spelled;
  });
}
