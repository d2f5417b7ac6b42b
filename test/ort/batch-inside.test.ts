import { expect, test } from "vitest";
import { batchedMatmul } from "../../src/graph/ops/math.ts";
import { floats, noise, sameBits, session } from "./fixture.ts";

/** What sharing a prompt rests on: keys kept positions outermost, read without a copy, and the same numbers to the bit. */

const [heads, D] = [3, 16];

/** (rows, batch, columns) → (batch, rows, columns) */
function batchOutside(data: Float32Array, rows: number): Float32Array {
  const out = new Float32Array(data.length);
  for (let row = 0; row < rows; row++) {
    for (let head = 0; head < heads; head++) {
      const from = (row * heads + head) * D;
      out.set(data.subarray(from, from + D), (head * rows + row) * D);
    }
  }
  return out;
}

test.each([
  ["scores", true],
  ["mixtures", false],
] as const)("fact: %s with the batch inside are those with the batch outside", (_, transposed) => {
  const s = session((g) => {
    const a = g.input("a", "float", [heads, "M", "K"]);
    const inside = g.input("inside", "float", ["R", heads, D]);
    const outside = g.input("outside", "float", [heads, "R", D]);
    const [x, y] = [
      batchedMatmul(g, a, inside, { transposed, alpha: 0.5, batchInside: true }),
      batchedMatmul(g, a, outside, { transposed, alpha: 0.5 }),
    ];
    g.output(g.node("Identity", [x], { names: ["x"] }));
    g.output(g.node("Identity", [y], { names: ["y"] }));
  });
  for (const [M, R] of [
    [2, 5],
    [3, 64],
    [48, 300],
    [192, 320],
  ] as const) {
    const K = transposed ? D : R;
    const data = noise(R * heads * D, R);
    const feeds = {
      a: floats([heads, M, K], noise(heads * M * K, M)),
      inside: floats([R, heads, D], data),
      outside: floats([heads, R, D], batchOutside(data, R)),
    };
    const out = s.run(feeds, ["x", "y"]);
    expect(sameBits(out.x as Float32Array, out.y as Float32Array)).toBe(true);
  }
  s.dispose();
});
