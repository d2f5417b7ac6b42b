/** Texts as words, for everything that compares texts: neither case nor punctuation nor white space counts. */

/** Scripts that put no blanks between words: each letter counts as one. */
const UNSPACED = ["Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar"]
  .map((script) => `\\p{Script=${script}}`)
  .join("");
/** Runs of letters and digits, and what arithmetic is written with one by one: 2 + 3 is not 2 - 3, nor 5! 5. */
const WORD = new RegExp(
  `[${UNSPACED}]|(?:(?![${UNSPACED}])[\\p{L}\\p{M}\\p{N}])+|[\\p{Sm}^*/%()-]|(?<=[\\p{N})])!`,
  "gu",
);

/** A text without any word is one word by itself, so that it still equals itself. */
export function wordsOf(text: string): string[] {
  return text.normalize("NFKC").toLowerCase().match(WORD) ?? [text.trim()];
}

/** Hashes (32 bits) of all runs of `length` words, in their order; a shorter text is one run. Other seeds give other hashes. */
export function hashedRuns(words: readonly string[], length: number, seed = 0): Uint32Array {
  const hashes = Uint32Array.from(words, (word) => hashWord(word, seed));
  const runs = new Uint32Array(Math.max(1, words.length - length + 1));
  for (let begin = 0; begin < runs.length; begin++) {
    let hash = 0;
    const end = Math.min(begin + length, words.length);
    for (let i = begin; i < end; i++) hash = mix(Math.imul(hash, 31) + hashes[i]!);
    runs[begin] = hash;
  }
  return runs;
}

/** FNV-1a over UTF-16 units. */
function hashWord(word: string, seed: number): number {
  let hash = 0x811c9dc5 ^ seed;
  for (let i = 0; i < word.length; i++) hash = Math.imul(hash ^ word.charCodeAt(i), 0x01000193);
  return mix(hash);
}

/** MurmurHash3's finaliser: every bit of the input reaches every bit of the output. */
export function mix(hash: number): number {
  let h = hash | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
