/**
 * Whether an explanation gives the solution away instead of arriving at it: the solution stands verbatim, as a word or words
 * of its own, in the first `share` of the explanation's characters. White space counts as one blank.
 */
export function isLeaked(explanation: string, solution: string, share: number): boolean {
  const text = plain(explanation);
  const wanted = plain(solution);
  if (wanted === "") return false;
  const within = text.length * share;
  for (let at = text.indexOf(wanted); at !== -1 && at + wanted.length <= within; at = text.indexOf(wanted, at + 1)) {
    if (!touchesWord(text, wanted, at)) return true;
  }
  return false;
}

const plain = (text: string): string => text.normalize("NFC").replace(/\s+/g, " ").trim();

const WORD = /[\p{L}\p{N}]/u;

/** "5" does not stand in "15". */
function touchesWord(text: string, wanted: string, at: number): boolean {
  const joined = (a: string | undefined, b: string | undefined): boolean =>
    a !== undefined && b !== undefined && WORD.test(a) && WORD.test(b);
  return joined(text[at - 1], wanted[0]) || joined(text[at + wanted.length], wanted.at(-1));
}
