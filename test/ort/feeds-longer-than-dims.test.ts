import { expect, test } from "vitest";
import { floats, session } from "./fixture.ts";

test("fact: a feed may be longer than its dims need, and is read where it lies", () => {
  const s = session((g) => g.output(g.node("Neg", [g.input("x", "float", ["N", 2])], { names: ["y"] })));
  const room = Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8);
  expect(s.run({ x: floats([2, 2], room) }, ["y"]).y).toEqual(Float32Array.of(-1, -2, -3, -4));
  expect(s.run({ x: floats([1, 2], room.subarray(4)) }, ["y"]).y).toEqual(Float32Array.of(-5, -6));
  s.dispose();
});
