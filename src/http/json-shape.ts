import { fail } from "../errors.ts";

/** No body of ours nests deeper than ten levels. A megabyte of brackets takes V8 a second to build. */
const MAX_DEPTH = 64;
/** Two contexts of a million token ids. Objects for more values would take hundreds of megabytes. */
const MAX_VALUES = 2_000_000;

/** Refuses JSON text that is costly out of proportion to its size, in one pass before it is parsed. */
export function assertModest(text: string): void {
  let depth = 0;
  let values = 0;
  for (let i = 0; i < text.length; i++) {
    switch (text.charCodeAt(i)) {
      case 0x22: // "
        i = endOfString(text, i);
        break;
      case 0x5b: // [
      case 0x7b: // {
        if (++depth > MAX_DEPTH) throw fail("invalid_json", `The body nests deeper than ${MAX_DEPTH} levels.`);
        break;
      case 0x5d: // ]
      case 0x7d: // }
        depth--;
        break;
      case 0x2c: // ,
        if (++values > MAX_VALUES) throw fail("invalid_json", `The body holds more than ${MAX_VALUES} values.`);
    }
  }
}

/** Index of the quote that ends the string beginning at `begin`; the end of the text when none does. */
function endOfString(text: string, begin: number): number {
  for (let end = text.indexOf('"', begin + 1); end !== -1; end = text.indexOf('"', end + 1)) {
    let escapes = 0;
    while (text[end - 1 - escapes] === "\\") escapes++;
    if (escapes % 2 === 0) return end;
  }
  return text.length;
}
