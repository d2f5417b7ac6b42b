/** A text in pieces, each with what it cost the student. */
import { begin } from "./markup.ts";

export interface Piece {
  text: string;
  /** −log p in nats; null: nobody asked the student. */
  surprise: number | null;
  /** In nats; null: not compared. */
  kl: number | null;
}

export interface PaintedText {
  pieces: Piece[];
  /** UTF-16 units that are not shown. */
  cut: number;
}

/** About two screens of a row: what is longer is read in the export. */
export const SHOWN_CHARACTERS = 6_000;
/** Of both sides; the formats have four. What lies further behind the text belongs to another one. */
const PADDING_BYTES = 64;
/** Each is an element of the page. */
const SHOWN_PIECES = 1_500;

/**
 * `values` come from a row, which may be anybody's: what does not fit the text (see `provenance.tokens`) leaves it uncoloured.
 * `padded`: the byte offsets count from before the padding of the student's format.
 */
export function paint(text: string, values: unknown, { padded = false } = {}): PaintedText {
  const shown = begin(text, SHOWN_CHARACTERS);
  const plain = { pieces: [{ text: shown, surprise: null, kl: null }], cut: text.length - shown.length };
  const read = readValues(values);
  if (!read) return plain;
  const bytes = Buffer.from(text, "utf8");
  const beyond = read.ends.at(-1)! - bytes.length;
  if (beyond > (padded ? PADDING_BYTES : 0)) return plain;
  return coloured(text, bytes, read, paddingBefore(text, beyond));
}

interface Values {
  ends: number[];
  logprobs: (number | null)[];
  kl: (number | null)[];
}

function readValues(given: unknown): Values | null {
  const { ends, logprobs, kl } = (given ?? {}) as Record<string, unknown>;
  if (!Array.isArray(ends) || !Array.isArray(logprobs) || ends.length === 0 || ends.length !== logprobs.length)
    return null;
  if (ends.some((end, i) => !Number.isSafeInteger(end) || end < (i === 0 ? 0 : ends[i - 1]))) return null;
  const number = (value: unknown): number | null =>
    typeof value === "number" && Number.isFinite(value) ? value : null;
  return { ends, logprobs: logprobs.map(number), kl: ends.map((_, i) => number(Array.isArray(kl) ? kl[i] : null)) };
}

/** Padding stands on both sides, but on none where the solution has it there already (prompts.ts: pad). */
function paddingBefore(solution: string, more: number): number {
  if (more <= 0) return 0;
  const [begins, ends] = [solution !== solution.trimStart(), solution !== solution.trimEnd()];
  return begins === ends ? Math.floor(more / 2) : begins ? 0 : more;
}

function coloured(text: string, bytes: Buffer, { ends, logprobs, kl }: Values, shift: number): PaintedText {
  const pieces: Piece[] = [];
  let shown = 0;
  let from = 0;
  let worst: Omit<Piece, "text"> = { surprise: null, kl: null };
  for (const [i, behind] of ends.entries()) {
    // The padding before it.
    if (behind <= shift && shift > 0) continue;
    const to = Math.min(bytes.length, behind - shift);
    const logprob = logprobs[i]!;
    // −0 would be written with its sign.
    worst = { surprise: larger(worst.surprise, logprob === null ? null : 0 - logprob), kl: larger(worst.kl, kl[i]!) };
    // A token may end inside a character: the next one belongs to the same piece.
    if (to === from || (to < bytes.length && (bytes[to]! & 0xc0) === 0x80)) continue;
    const piece = bytes.toString("utf8", from, to);
    if (shown + piece.length > SHOWN_CHARACTERS || pieces.length === SHOWN_PIECES) break;
    pieces.push({ text: piece, ...worst });
    shown += piece.length;
    from = to;
    worst = { surprise: null, kl: null };
  }
  const rest = bytes.toString("utf8", from);
  if (pieces.length < SHOWN_PIECES && shown + rest.length <= SHOWN_CHARACTERS) {
    if (rest !== "") pieces.push({ text: rest, surprise: null, kl: null });
    return { pieces, cut: 0 };
  }
  return { pieces, cut: text.length - shown };
}

function larger(a: number | null, b: number | null): number | null {
  if (a === null || b === null) return a ?? b;
  return Math.max(a, b);
}
