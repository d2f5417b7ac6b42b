import { fail } from "../errors.ts";
import type { AddedTokenMatcher } from "./added-tokens.ts";

/**
 * Keeps control tokens in contents from being taken for the template's own. Templates must see real contents (they trim
 * and search them), so the first character of every occurrence is replaced by a stand-in from the private use area that
 * no text in the request contains; after the template has run and its own tokens were cut out, characters come back.
 */
export interface Neutraliser {
  hide(text: string, tokens: AddedTokenMatcher): string;
  restore(text: string): string;
}

/** @param texts everything that reaches the template, and its source */
export function createNeutraliser(texts: readonly string[]): Neutraliser {
  const used = new Set<string>();
  for (const text of texts) for (const char of text.match(/\p{Co}/gu) ?? []) used.add(char);
  const free = privateUse(used);
  const standIns = new Map<string, string>();
  const originals = new Map<string, string>();

  function standInFor(char: string): string {
    const known = standIns.get(char);
    if (known) return known;
    const next = free.next();
    if (next.done) throw fail("invalid_value", "the messages use every private use character of Unicode; remove some");
    standIns.set(char, next.value);
    originals.set(next.value, char);
    return next.value;
  }

  return {
    hide(text, tokens) {
      // A beginning of a token at the very end could go on in what the template writes next, after trimming.
      const body = text.trimEnd();
      let out = "";
      let done = 0;
      for (const start of tokens.starts(body)) {
        if (start < done) continue;
        const char = String.fromCodePoint(body.codePointAt(start) as number);
        out += text.slice(done, start) + standInFor(char);
        done = start + char.length;
      }
      return out + text.slice(done);
    },
    restore: (text) => (originals.size === 0 ? text : text.replace(/\p{Co}/gu, (char) => originals.get(char) ?? char)),
  };
}

function* privateUse(used: ReadonlySet<string>): Generator<string, undefined> {
  for (const [from, to] of [
    [0xe000, 0xf8ff],
    [0xf0000, 0xffffd],
  ] as const) {
    for (let point = from; point <= to; point++) {
      const char = String.fromCodePoint(point);
      if (!used.has(char)) yield char;
    }
  }
  return undefined;
}
