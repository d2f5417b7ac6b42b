import fc from "fast-check";
import { expect, test } from "vitest";
import { alignTokens, type Tokenised } from "../../../src/rlt/align.ts";
import { startOf, tokensInside } from "../../../src/rlt/spans.ts";

const lengths = fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 30 });
const endsOf = (sizes: number[]): Int32Array => {
  let end = 0;
  return Int32Array.from(sizes, (size) => {
    end += size;
    return end;
  });
};

test("tokensInside takes exactly the tokens whose bytes lie wholly inside", () => {
  fc.assert(
    fc.property(lengths, fc.nat(80), fc.nat(80), (sizes, a, b) => {
      const ends = endsOf(sizes);
      const range = { start: Math.min(a, b), end: Math.max(a, b) };
      const span = tokensInside(ends, range);
      const inside = sizes.flatMap((size, i) =>
        size > 0 && startOf(ends, i) >= range.start && (ends[i] as number) <= range.end ? [i] : [],
      );
      const found = Array.from({ length: span.to - span.from }, (_, i) => span.from + i).filter((i) => sizes[i] !== 0);
      expect(found).toEqual(inside);
    }),
  );
});

test("stretches are the shortest that have a boundary on both sides, in bytes of the explanation", () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 20 }),
      fc.infiniteStream(fc.integer({ min: 1, max: 4 })),
      fc.nat(7),
      fc.nat(7),
      (left, stream, shiftLeft, shiftRight) => {
        const total = left.reduce((a, b) => a + b, 0);
        const right: number[] = [];
        for (let sum = 0; sum < total; ) {
          const next = Math.min(stream.next().value as number, total - sum);
          right.push(next);
          sum += next;
        }
        const side = (sizes: number[], shift: number): Tokenised => ({
          ends: endsOf([shift, ...sizes]),
          span: { from: 1, to: sizes.length + 1 },
          start: shift,
        });
        const teacher = side(left, shiftLeft);
        const student = side(right, shiftRight);
        const stretches = alignTokens(teacher, student);
        const borders = (sizes: number[]) => new Set([0, ...endsOf(sizes)]);
        const common = [...borders(left)].filter((at) => borders(right).has(at)).sort((a, b) => a - b);
        expect(stretches.map((s) => startOf(teacher.ends, s.teacher.from) - shiftLeft)).toEqual(common.slice(0, -1));
        expect(stretches.map((s) => (student.ends[s.student.to - 1] as number) - shiftRight)).toEqual(common.slice(1));
        if (left.join() === right.join()) expect(stretches).toHaveLength(left.length);
      },
    ),
  );
});
