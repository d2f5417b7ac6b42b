import type { AddedToken } from "./tokenizer-file.ts";

/** A stretch of plain text, or an added token; `text` of a token includes the white space it swallows. */
export type Segment = { kind: "text"; text: string } | { kind: "token"; id: number; text: string };

/** Finds added tokens in text: leftmost, longest. */
export interface AddedTokenMatcher {
  /** The text cut up; the texts of the segments joined give the text back. Empty stretches are left out. */
  split(text: string): Segment[];
  /** Where tokens begin, overlapping ones included, and tokens that the end of the text cuts off. */
  starts(text: string): number[];
  isEmpty: boolean;
}

interface Node {
  children: Map<number, Node>;
  token?: AddedToken;
}

const WORD_CHARACTER = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}]/u;

/** @param textOf what is looked for; the content unless the text was transformed. */
export function createMatcher(
  tokens: readonly AddedToken[],
  textOf: (token: AddedToken) => string = (token) => token.content,
): AddedTokenMatcher {
  const root: Node = { children: new Map() };
  let longest = 0;
  for (const token of tokens) {
    const content = textOf(token);
    if (content.length === 0) continue;
    longest = Math.max(longest, content.length);
    let node = root;
    for (let i = 0; i < content.length; i++) {
      const unit = content.charCodeAt(i);
      const child: Node = node.children.get(unit) ?? { children: new Map() };
      node.children.set(unit, child);
      node = child;
    }
    node.token ??= token;
  }

  /** The longest token that begins at `start`. */
  function matchAt(text: string, start: number): { token: AddedToken; end: number } | undefined {
    let node = root.children.get(text.charCodeAt(start));
    let found: { token: AddedToken; end: number } | undefined;
    for (let end = start + 1; node; end++) {
      if (node.token) found = { token: node.token, end };
      node = end < text.length ? node.children.get(text.charCodeAt(end)) : undefined;
    }
    return found;
  }

  /** Whether some token begins with all of the text from `start`. */
  function isPrefix(text: string, start: number): boolean {
    let node: Node | undefined = root;
    for (let i = start; node && i < text.length; i++) node = node.children.get(text.charCodeAt(i));
    return node !== undefined;
  }

  function split(text: string): Segment[] {
    const segments: Segment[] = [];
    let done = 0;
    for (let i = 0; i < text.length; ) {
      const found = matchAt(text, i);
      if (!found || (found.token.singleWord && touchesWord(text, i, found.end))) {
        i++;
        continue;
      }
      const start = found.token.lstrip ? done + text.slice(done, i).trimEnd().length : i;
      const end = found.token.rstrip ? whiteSpaceEnd(text, found.end) : found.end;
      if (start > done) segments.push({ kind: "text", text: text.slice(done, start) });
      segments.push({ kind: "token", id: found.token.id, text: text.slice(start, end) });
      done = i = end;
    }
    if (done < text.length) segments.push({ kind: "text", text: text.slice(done) });
    return segments;
  }

  return {
    split,
    isEmpty: root.children.size === 0,
    starts(text) {
      const list: number[] = [];
      const openFrom = text.length - longest;
      for (let start = 0; start < text.length; start++) {
        if (matchAt(text, start) || (start > openFrom && isPrefix(text, start))) list.push(start);
      }
      return list;
    },
  };
}

function touchesWord(text: string, start: number, end: number): boolean {
  const before = Array.from(text.slice(Math.max(0, start - 2), start)).at(-1);
  const after = Array.from(text.slice(end, end + 2))[0];
  return [before, after].some((char) => char !== undefined && WORD_CHARACTER.test(char));
}

function whiteSpaceEnd(text: string, from: number): number {
  let end = from;
  while (end < text.length && /\s/.test(text[end] as string)) end++;
  return end;
}
