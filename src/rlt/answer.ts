/** What a student answered: its turn taken apart the way its format puts it together. */
import type { StudentFormat } from "./formats.ts";

/** A tag of one sign ("[" or "|") stands anywhere in a text. */
const SHORTEST_TAG = 3;

export interface Answer {
  /** Without white space around it. */
  text: string;
  /** The mark that begins the solution was written; without it the whole completion is the answer. */
  found: boolean;
}

/** The tag after which a student has said all: sampling stops there. Null: it ends with its turn. */
export function answerClose(format: StudentFormat): string | null {
  const after = partsOf(format).after.trim();
  return after.length >= SHORTEST_TAG && format.tags.includes(after) ? after : null;
}

/**
 * The solution in a completion that a student wrote: what stands after the words that lead from the explanation to the
 * solution (or, where a student is careless with them, after the tag among them that is nearest to the solution), up to the
 * closing tag. The last such place counts: a student may write a tag while it thinks.
 */
export function answerOf(format: StudentFormat, completion: string): Answer {
  const from = afterMark(format, completion);
  const rest = from === null ? completion : completion.slice(from);
  const close = answerClose(format);
  const to = close === null ? -1 : rest.indexOf(close);
  const text = (to < 0 ? rest : rest.slice(0, to)).trim();
  return { text: from === null ? text : withoutEnd(text, partsOf(format).after.trim()), found: from !== null };
}

function afterMark(format: StudentFormat, completion: string): number | null {
  const { middle } = partsOf(format);
  const close = answerClose(format);
  // What a student writes after its closing tag is no answer any more.
  const end = close === null ? -1 : completion.indexOf(close);
  const text = end < 0 ? completion : completion.slice(0, end);
  let from: number | null = null;
  for (const { index, 0: mark } of text.matchAll(loosely(middle))) from = index + mark.length;
  if (from !== null) return from;
  const tag = lastTag(format, middle);
  const at = tag === null ? -1 : text.lastIndexOf(tag);
  return at < 0 ? null : at + tag!.length;
}

function lastTag({ tags }: StudentFormat, middle: string): string | null {
  const long = tags.filter((tag) => tag.length >= SHORTEST_TAG && middle.includes(tag));
  return long.sort((a, b) => middle.lastIndexOf(a) - middle.lastIndexOf(b)).at(-1) ?? null;
}

/** Matches a text with any white space where it has some. Linear: no white space stands beside other white space. */
function loosely(text: string): RegExp {
  const words = text
    .trim()
    .split(/\s+/)
    .map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(words.join("\\s*"), "g");
}

/** A format that ends a solution with words ("."), not with a tag. */
function withoutEnd(text: string, end: string): string {
  return end !== "" && text.endsWith(end) ? text.slice(0, -end.length).trimEnd() : text;
}

function partsOf({ turn }: StudentFormat): { middle: string; after: string } {
  const [, rest = ""] = turn.split("{explanation}");
  const [middle = "", after = ""] = rest.split("{solution}");
  return { middle, after };
}
