/**
 * What `tokenizer.ggml.pre` names: how text is cut before byte-pair merging. The patterns are those of the tokenizer.json
 * files that the names stand for (llama.cpp rewrites some for its own regex engine; these are the originals), applied one
 * after the other, each isolating its matches.
 */
export interface PreTokenizer {
  splits: readonly string[];
  /** The original tokenizer.json normalises to NFC. */
  nfc?: boolean;
  /** A piece that is a token as a whole is taken whole, whatever the merges say. */
  ignoreMerges?: boolean;
  /** Whether BOS is added when `tokenizer.ggml.add_bos_token` is absent. */
  addBos?: boolean;
}

const GPT2_WORDS = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;
const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const SPACES = String.raw`\s*[\r\n]+|\s+(?!\S)|\s+`;
const LLAMA3_WORDS = String.raw`${CONTRACTIONS}|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|${SPACES}`;
const QWEN2_WORDS = String.raw`${CONTRACTIONS}|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|${SPACES}`;
const QWEN35_WORDS = String.raw`${CONTRACTIONS}|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|${SPACES}`;
const UPPER = String.raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`;
const LOWER = String.raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`;
const TEKKEN_WORDS = String.raw`[^\r\n\p{L}\p{N}]?${UPPER}*${LOWER}+|[^\r\n\p{L}\p{N}]?${UPPER}+${LOWER}*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|${SPACES}`;
const GPT4O_WORDS = String.raw`[^\r\n\p{L}\p{N}]?${UPPER}*${LOWER}+${CONTRACTIONS}?|[^\r\n\p{L}\p{N}]?${UPPER}+${LOWER}*${CONTRACTIONS}?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|${SPACES}`;
const CJK = "[一-龥ࠀ-一가-퟿]+";
/** Letters with case, as deepseek-llm lists them; escaped because some would be changed by a normalising editor. */
const CASED_LETTERS = [
  "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-",
  "\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-",
  "\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf",
  "\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-",
  "\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc",
  "\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115",
  "\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e",
  "\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-",
  "\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a",
  "\u{10400}-\u{1044f}\u{104b0}-\u{104d3}\u{104d8}-\u{104fb}\u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}",
  "\u{118a0}-\u{118df}\u{1e900}-\u{1e943}",
].join("");
const DEEPSEEK3_WORDS = String.raw`[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_${"`"}{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|${SPACES}`;

const GPT2: PreTokenizer = { splits: [GPT2_WORDS] };
const LLAMA3: PreTokenizer = { splits: [LLAMA3_WORDS], ignoreMerges: true, addBos: true };
const QWEN2: PreTokenizer = { splits: [QWEN2_WORDS], nfc: true };
const SMOLLM: PreTokenizer = { splits: [String.raw`\p{N}`, GPT2_WORDS] };
const GPT4O: PreTokenizer = { splits: [GPT4O_WORDS] };

/** Names as llama.cpp's converter writes them. */
export const PRE_TOKENIZERS: Readonly<Record<string, PreTokenizer>> = {
  "gpt-2": GPT2,
  "phi-2": GPT2,
  olmo: GPT2,
  mpt: GPT2,
  smollm: SMOLLM,
  starcoder: SMOLLM,
  refact: SMOLLM,
  codeshell: SMOLLM,
  exaone: SMOLLM,
  "minerva-7b": SMOLLM,
  llama3: LLAMA3,
  "llama-v3": LLAMA3,
  "llama-bpe": LLAMA3,
  falcon3: LLAMA3,
  lfm2: LLAMA3,
  dbrx: { splits: [LLAMA3_WORDS] },
  "smaug-bpe": { splits: [LLAMA3_WORDS] },
  qwen2: QWEN2,
  "deepseek-r1-qwen": QWEN2,
  megrez: QWEN2,
  stablelm2: { splits: [QWEN2_WORDS] },
  qwen35: { splits: [QWEN35_WORDS], nfc: true },
  tekken: { splits: [TEKKEN_WORDS], ignoreMerges: true, addBos: true },
  "gpt-4o": GPT4O,
  llama4: GPT4O,
  "deepseek-llm": {
    splits: [
      String.raw`[\r\n]`,
      String.raw`\s?[${CASED_LETTERS}]+`,
      String.raw`\s?[!-/:-~！-／：-～‘-‟　-。]+`,
      String.raw`\s+$`,
      CJK,
      String.raw`\p{N}`,
    ],
  },
  "deepseek-coder": {
    splits: [String.raw`[\r\n]`, String.raw`\s?\p{L}+`, String.raw`\s?\p{P}+`, CJK, String.raw`\p{N}`],
  },
  "deepseek-v3": { splits: [String.raw`\p{N}{1,3}`, "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3_WORDS] },
};

/**
 * Files from before the key existed, and those that say "default": the Qwen families have had one pattern throughout;
 * elsewhere GPT-2's, as Transformers takes.
 */
export function defaultPreTokenizer(architecture: string): PreTokenizer {
  return architecture.startsWith("qwen") ? QWEN2 : GPT2;
}
