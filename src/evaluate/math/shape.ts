/** Answers of several values: tuples, intervals, sets, lists, matrices. */

export type Shape =
  | { kind: "value"; text: string }
  /** Tuples and intervals: their brackets and their order count. */
  | { kind: "tuple"; brackets: string; items: Shape[] }
  /** Sets, unions and bare lists (`1, 2`): the order does not count. */
  | { kind: "set"; items: Shape[] };

/** More values than any answer has; sets are compared each with each. */
const MAX_ITEMS = 64;
const MAX_DEPTH = 4;

export function shapeOf(text: string, depth = 0): Shape {
  const value: Shape = { kind: "value", text };
  if (depth > MAX_DEPTH) return value;
  const inner = (parts: readonly string[]): Shape[] => parts.map((part) => shapeOf(part.trim(), depth + 1));

  const matrix = /^\\begin\{([bpvV]?matrix)\}([\s\S]*)\\end\{\1\}$/.exec(text);
  if (matrix) {
    const rows = matrix[2]!.split("\\newline").filter((row) => row.trim() !== "");
    if (rows.length > MAX_ITEMS) return value;
    const items = rows.map((row): Shape => ({ kind: "tuple", brackets: "&", items: inner(row.split("&")) }));
    return { kind: "tuple", brackets: "matrix", items };
  }
  const united = topLevel(text, "\\cup");
  if (united.length > 1) return { kind: "set", items: inner(united) };

  const listed = topLevel(text, ",");
  if (listed.length > MAX_ITEMS) return value;
  if (listed.length > 1) return { kind: "set", items: inner(listed) };

  const set = /^\\\{([\s\S]*)\\\}$/.exec(text) ?? /^\{([\s\S]*)\}$/.exec(text);
  if (set) {
    const items = topLevel(set[1]!, ",");
    // Braces around one value group it.
    if (items.length > 1 && items.length <= MAX_ITEMS) return { kind: "set", items: inner(items) };
    return shapeOf(set[1]!.trim(), depth + 1);
  }
  const tuple = /^[[(]([\s\S]*)[\])]$/.exec(text);
  if (tuple) {
    const items = topLevel(tuple[1]!, ",");
    if (items.length > 1 && items.length <= MAX_ITEMS) {
      return { kind: "tuple", brackets: text[0]! + text.at(-1)!, items: inner(items) };
    }
  }
  // a ± b: both.
  const signs = text.split("\\pm");
  if (signs.length === 2) return { kind: "set", items: inner([signs.join("+"), signs.join("-")]) };
  return value;
}

/** Cut at a separator outside of all brackets. An interval's brackets need not match: `[0, 1)`. */
function topLevel(text: string, separator: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let from = 0;
  for (let i = 0; i < text.length; i++) {
    const sign = text[i]!;
    if ("([{".includes(sign)) depth++;
    else if (")]}".includes(sign)) depth--;
    else if (depth === 0 && text.startsWith(separator, i)) {
      parts.push(text.slice(from, i));
      from = i + separator.length;
    }
  }
  parts.push(text.slice(from));
  return parts;
}
