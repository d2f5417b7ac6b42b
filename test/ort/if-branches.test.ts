import { expect, test } from "vitest";
import { tensor } from "../../src/engine/onnx/runtime.ts";
import { when } from "../../src/graph/ops/math.ts";
import { floats, session } from "./fixture.ts";

test("fact: a branch of If sees outer values, only the chosen one runs, and shapes may differ between the two", () => {
  const s = session((g) => {
    const x = g.input("x", "float", ["N", 3]);
    const want = g.input("want", "bool", []);
    const k = g.input("k", "int64", [1]);
    const [y] = when(
      g,
      want,
      { y: "float" },
      // TopK with k = 99 fails on three columns, so a branch that ran without being chosen would show.
      (b) => [b.nodes("TopK", [x, k], ["float", "int64"])[0]!],
      (b) => [b.node("Identity", [b.constant("float", [0, 0], new Uint8Array(0))])],
    );
    g.output(y!);
  });
  const run = (want: number, k: bigint): unknown =>
    s.run(
      {
        x: floats([1, 3], Float32Array.of(1, 3, 2)),
        want: tensor("bool", [], Uint8Array.of(want)),
        k: tensor("int64", [1], BigInt64Array.of(k)),
      },
      ["y"],
    ).y;
  expect(run(1, 2n)).toEqual(Float32Array.of(3, 2));
  expect(run(0, 99n)).toEqual(new Float32Array(0));
  expect(() => run(1, 99n)).toThrow(expect.objectContaining({ code: "engine_failed" }));
  s.dispose();
});
