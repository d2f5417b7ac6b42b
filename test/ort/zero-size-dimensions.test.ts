import { expect, test } from "vitest";
import type { Value } from "../../src/graph/ir.ts";
import { add, matmul, matmulTransposed } from "../../src/graph/ops/math.ts";
import { concat, shapeOf, splitBy } from "../../src/graph/ops/shape.ts";
import { floats, noise, session } from "./fixture.ts";

test("fact: products over a dimension of size 0 are exact zeros (an empty cache, an adapter of rank 0)", () => {
  const s = session((g) => {
    const x = g.input("x", "float", ["N", 4]);
    const a = g.input("a", "float", ["r", 4]);
    const b = g.input("b", "float", [3, "r"]);
    g.output(g.node("Identity", [matmulTransposed(g, matmulTransposed(g, x, a), b)], { names: ["y"] }));
  });
  const empty = new Float32Array(0);
  const out = s.run({ x: floats([2, 4], noise(8)), a: floats([0, 4], empty), b: floats([3, 0], empty) }, ["y"]);
  expect(out.y).toEqual(new Float32Array(6));
  s.dispose();
});

test("fact: concat and split pass an empty part through", () => {
  const s = session((g) => {
    const q = g.input("q", "float", [1, 2, "M", 4]);
    const past = g.input("past", "float", [1, 2, "P", 4]);
    const fresh = g.input("fresh", "float", [1, 2, "S", 4]);
    const scores = concat(g, [matmulTransposed(g, q, past), matmulTransposed(g, q, fresh)], 3);
    const sizes = concat(g, [shapeOf(g, past, 2, 3), shapeOf(g, fresh, 2, 3)], 0);
    const [overPast, overFresh] = splitBy(g, scores, 3, sizes, 2) as [Value, Value];
    g.output(g.node("Identity", [add(g, matmul(g, overPast, past), matmul(g, overFresh, fresh))], { names: ["y"] }));
  });
  const [q, kv] = [noise(24, 1), noise(24, 2)];
  const run = (past: number): unknown =>
    s.run(
      {
        q: floats([1, 2, 3, 4], q),
        past: floats([1, 2, past, 4], kv),
        fresh: floats([1, 2, 3 - past, 4], kv),
      },
      ["y"],
    ).y;
  expect(run(0)).toEqual(run(3));
  s.dispose();
});
