/**
 * The byte-level alphabet of GPT-2: every byte is written as one printable character, so that a BPE over characters is
 * one over bytes. Printable Latin-1 stands for itself; the other 68 bytes take U+0100, U+0101, … in order.
 */

const isPrintable = (byte: number): boolean =>
  (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);

/** (256) the character of each byte */
export const BYTE_CHARS: readonly string[] = (() => {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : next++));
})();

const CHAR_BYTES = new Map(BYTE_CHARS.map((char, byte) => [char, byte]));

const encoder = new TextEncoder();

export function toByteChars(text: string): string {
  let out = "";
  for (const byte of encoder.encode(text)) out += BYTE_CHARS[byte];
  return out;
}

/** The bytes a token of a byte-level vocabulary stands for; one with a character outside the alphabet is plain text. */
export function fromByteChars(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const byte = CHAR_BYTES.get(token[i] as string);
    if (byte === undefined) return encoder.encode(token);
    bytes[i] = byte;
  }
  return bytes;
}
