/**
 * Maps what the tokenizer's pipeline made of a stretch of text back to the text. Tokens know their place in the *source*
 * (the words BPE saw, as bytes, `▁` as a space); the text may lack the space put in front, or have white space that
 * was removed.
 */

const SPACE = 0x20;
/** How far a byte of the source is looked for after text that the pipeline dropped. */
const SEARCH_BYTES = 1024;
/** UTF-8 of ▁ */
const METASPACE_BYTES = [0xe2, 0x96, 0x81] as const;

/**
 * (S + 1) For each source position the position in `text` up to which the source accounts for it; never decreasing, first 0. A source
 * byte without a counterpart (the space in front) takes no room.
 */
export function alignBytes(source: Uint8Array, text: Uint8Array): Int32Array {
  const positions = new Int32Array(source.length + 1);
  let at = 0;
  for (let i = 0; i < source.length; i++) {
    const byte = source[i] as number;
    if (text[at] === byte) at++;
    else if (byte === SPACE && METASPACE_BYTES.every((part, k) => text[at + k] === part)) at += METASPACE_BYTES.length;
    else if (byte !== SPACE) {
      const skipped = text.subarray(at, at + SEARCH_BYTES).indexOf(byte);
      if (skipped >= 0) at += skipped + 1;
    }
    positions[i + 1] = at;
  }
  return positions;
}
