/** What the view needs of a token: its text, its bytes in the source, and the number that colours it. */
export interface ViewToken {
  text: string;
  /** Byte offsets in the source text. */
  start: number;
  end: number;
  /** Nats; null where a token has no number (the first one of a text, or a stretch shared with others). */
  value: number | null;
}

export interface Piece {
  text: string;
  value: number | null;
}

const REPLACEMENT = "\ufffd";

/**
 * Tokens as printable pieces. A token may be part of a character (its text is then U+FFFD): such tokens are joined until
 * their bytes in the source make whole characters, and the piece takes the largest of their numbers.
 */
export function toPieces(tokens: readonly ViewToken[], source: string): Piece[] {
  const bytes = Buffer.from(source, "utf8");
  const pieces: Piece[] = [];
  for (let i = 0; i < tokens.length; i++) {
    const first = tokens[i]!;
    if (!first.text.includes(REPLACEMENT)) {
      pieces.push({ text: first.text, value: first.value });
      continue;
    }
    let last = first;
    let value = first.value;
    let text = decode(bytes, first.start, last.end);
    while (text === undefined && tokens[i + 1]?.start === last.end) {
      last = tokens[++i]!;
      value = larger(value, last.value);
      text = decode(bytes, first.start, last.end);
    }
    pieces.push({ text: text ?? REPLACEMENT, value });
  }
  return pieces;
}

function larger(a: number | null, b: number | null): number | null {
  if (a === null || b === null) return a ?? b;
  return Math.max(a, b);
}

/** The text of these bytes, or undefined while they end inside a character. */
function decode(bytes: Buffer, start: number, end: number): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes.subarray(start, end));
  } catch {
    return undefined;
  }
}
