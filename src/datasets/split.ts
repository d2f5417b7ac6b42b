/** Which rows a model learns from, and which it is measured on. */
import { createHash } from "node:crypto";

export interface Split {
  train: number[];
  heldOut: number[];
}

/** Changing anything here changes what every past run held out: make a new version beside it instead. */
const VERSION = "preceptor-split-1";

/**
 * A question is held out when its hash under the seed falls below the fraction. So all rows of one question lie on the same
 * side, and a question that is held out here is held out in every dataset split with this seed and fraction. The share is
 * met on average; with 0 < fraction < 1 and two questions or more, neither side is ever empty: the question that is nearest to
 * the border changes sides.
 */
export function splitByQuestion(questionHashes: Iterable<Buffer>, heldOutFraction: number, seed: number): Split {
  const places = new Map<string, number>();
  const rows: string[] = [];
  for (const hash of questionHashes) {
    const question = hash.toString("latin1");
    rows.push(question);
    if (!places.has(question)) places.set(question, place(hash, seed));
  }
  const held = new Set<string>();
  for (const [question, at] of places) if (at < heldOutFraction) held.add(question);
  if (heldOutFraction > 0 && heldOutFraction < 1 && places.size > 1) {
    if (held.size === 0) held.add(extreme(places, -1));
    else if (held.size === places.size) held.delete(extreme(places, 1));
  }
  const split: Split = { train: [], heldOut: [] };
  for (const [i, question] of rows.entries()) (held.has(question) ? split.heldOut : split.train).push(i);
  return split;
}

/** In [0, 1), 48 bits of sha256 over version, seed and question. */
function place(questionHash: Buffer, seed: number): number {
  const digest = createHash("sha256").update(`${VERSION}\0${seed}\0`).update(questionHash).digest();
  return digest.readUIntBE(0, 6) / 2 ** 48;
}

/** The question with the lowest (-1) or highest (1) place; of equal ones the smaller hash. */
function extreme(places: ReadonlyMap<string, number>, sign: 1 | -1): string {
  let best: [string, number] | undefined;
  for (const [question, at] of places) {
    const nearer = best === undefined ? 1 : sign * (at - best[1]);
    if (nearer > 0 || (nearer === 0 && best !== undefined && question < best[0])) best = [question, at];
  }
  return best?.[0] ?? "";
}
