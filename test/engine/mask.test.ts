import { expect, test } from "vitest";
import { attentionMask } from "../../src/engine/onnx/mask.ts";

/** Which of P + S columns each row sees, by the definition. */
function visible(lengths: number[], capacity: number, S: number, R: number, window: number | null): boolean[] {
  const out: boolean[] = [];
  for (const cached of lengths) {
    for (let s = 0; s < R; s++) {
      for (let j = 0; j < capacity + S; j++) {
        const isPast = j < capacity;
        const position = isPast ? j : cached + (j - capacity);
        const exists = isPast ? j < cached : j - capacity <= s;
        const near = window === null || cached + s - position < window;
        out.push(s >= S || (exists && near));
      }
    }
  }
  return out;
}

test.each([
  { lengths: [3, 0, 5], capacity: 8, S: 1, R: 1, window: null },
  { lengths: [3, 7], capacity: 8, S: 1, R: 2, window: 3 },
  { lengths: [0], capacity: 0, S: 5, R: 5, window: null },
  { lengths: [6], capacity: 8, S: 5, R: 6, window: 4 },
  { lengths: [6], capacity: 8, S: 5, R: 5, window: 1 },
  { lengths: [6], capacity: 8, S: 3, R: 3, window: 100 },
])("mask of $lengths cached, $S new, window $window", ({ lengths, capacity, S, R, window }) => {
  const mask = attentionMask({ lengths, capacity, length: S, queryRows: R, window });
  expect([...mask].map((value) => value === 0)).toEqual(visible(lengths, capacity, S, R, window));
  for (const value of mask) expect(value === 0 || Math.exp(value) === 0).toBe(true);
});
