import { startOf, type TokenSpan } from "./spans.ts";

/** A run of bytes at whose borders both tokenisations have a boundary: tokens [from, to) on each side. */
export interface Stretch {
  teacher: TokenSpan;
  student: TokenSpan;
}

export interface Tokenised {
  ends: Int32Array;
  span: TokenSpan;
  /** Byte offset of the explanation in this side's text; borders are compared relative to it. */
  start: number;
}

/**
 * The shortest stretches of the explanation at which both tokenisations have a boundary (method.md, "Two tokenizers").
 * With the same tokens on both sides every stretch is one token. Bytes that only one side covers (a first or last token
 * that merged with a tag) belong to no stretch.
 */
export function alignTokens(teacher: Tokenised, student: Tokenised): Stretch[] {
  const left = boundaries(teacher);
  const right = boundaries(student);
  const stretches: Stretch[] = [];
  let i = 0;
  let j = 0;
  let open: { i: number; j: number } | null = null;
  while (i < left.length && j < right.length) {
    const a = left[i] as number;
    const b = right[j] as number;
    if (a < b) i++;
    else if (b < a) j++;
    else {
      if (open) {
        stretches.push({
          teacher: { from: teacher.span.from + open.i, to: teacher.span.from + i },
          student: { from: student.span.from + open.j, to: student.span.from + j },
        });
      }
      open = { i, j };
      i++;
      j++;
    }
  }
  return stretches;
}

/** Byte offsets, relative to the explanation's start, of the borders of the span's tokens: one more than there are tokens. */
function boundaries({ ends, span, start }: Tokenised): number[] {
  if (span.from >= span.to) return [];
  const borders = [startOf(ends, span.from) - start];
  for (let token = span.from; token < span.to; token++) borders.push((ends[token] as number) - start);
  return borders;
}
