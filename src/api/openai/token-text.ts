import { isUtf8 } from "node:buffer";
import type { TextModel } from "../../text/text.ts";

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** One token by itself, special tokens spelled out; a part of a character becomes U+FFFD, as in vLLM. */
export function tokenText(model: TextModel, id: number): string {
  return decoder.decode(model.bytesOf(id, true));
}

/**
 * The token as a name that no other token shares, for the completions format, whose alternatives are keyed by text:
 * parts of a character as `bytes:\xf0\x9f` (OpenAI's form), ids without text as `token_id:504` (vLLM's form).
 */
export function tokenName(model: TextModel, id: number): string {
  const bytes = model.bytesOf(id, true);
  if (bytes.length === 0) return tokenIdName(id);
  if (isUtf8(bytes)) return decoder.decode(bytes);
  return `bytes:${Array.from(bytes, (byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")}`;
}

/** vLLM's name of a token under `return_tokens_as_token_ids`. */
export function tokenIdName(id: number): string {
  return `token_id:${id}`;
}

/** UTF-8 bytes that begin a character: a rolling count gives offsets in code points whatever the tokens' borders are. */
export function countCharacters(bytes: Uint8Array): number {
  let count = 0;
  for (const byte of bytes) if ((byte & 0xc0) !== 0x80) count++;
  return count;
}
