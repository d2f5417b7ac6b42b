import { expect, test } from "vitest";
import { matmul, matmulTransposed, softmax } from "../../src/graph/ops/math.ts";
import { floats, noise, sameBits, session } from "./fixture.ts";

/** What `batch_invariant` rests on (engine.md 2.7). The engine's self-test says at load whether it holds on a machine. */

test.each([
  [576, 576],
  [64, 512],
  [1536, 576],
  [576, 4099],
])("fact: rows of an fp32 product with constant weights (%i → %i) do not depend on how many there are", (K, N) => {
  const w = noise(N * K, 2);
  const x = noise(512 * K, 3);
  const s = session((g) => {
    const weight = g.constant("float", [N, K], new Uint8Array(w.buffer));
    g.output(matmulTransposed(g, g.input("x", "float", ["M", K]), weight, 1, "y"));
  });
  const whole = s.run({ x: floats([512, K], x) }, ["y"]).y as Float32Array;
  for (const M of [1, 2, 3, 5, 8, 16, 31, 64, 130, 256]) {
    const part = s.run({ x: floats([M, K], x) }, ["y"]).y as Float32Array;
    expect(sameBits(part, whole.subarray(0, M * N))).toBe(true);
  }
  s.dispose();
});

test("fact: attention over a padded cache, two rows or more at a time, is the same for any padding and batch", () => {
  const [kvHeads, M, D, P] = [2, 2, 16, 200];
  const s = session((g) => {
    const q = g.input("q", "float", ["B", kvHeads, "M", D]);
    const k = g.input("k", "float", ["B", kvHeads, "P", D]);
    const v = g.input("v", "float", ["B", kvHeads, "P", D]);
    const mask = g.input("mask", "float", [1, 1, 1, "P"]);
    const p = softmax(g, g.node("Add", [matmulTransposed(g, q, k, 0.25), mask]));
    g.output(g.node("Identity", [matmul(g, p, v)], { names: ["y"] }));
  });
  const run = (batch: number, capacity: number): Float32Array => {
    const rows = (seed: number): Float32Array => {
      const out = new Float32Array(batch * kvHeads * capacity * D);
      for (let b = 0; b < batch * kvHeads; b++) out.set(noise(P * D, seed + b), b * capacity * D);
      return out;
    };
    const mask = new Float32Array(capacity).fill(-1e30, P);
    const q = noise(batch * kvHeads * M * D, 9);
    const feeds = {
      q: floats([batch, kvHeads, M, D], q),
      k: floats([batch, kvHeads, capacity, D], rows(100)),
      v: floats([batch, kvHeads, capacity, D], rows(200)),
      mask: floats([1, 1, 1, capacity], mask),
    };
    return (s.run(feeds, ["y"]).y as Float32Array).slice(0, kvHeads * M * D);
  };
  const alone = run(1, P);
  for (const [batch, capacity] of [
    [1, 256],
    [1, 1024],
    [5, 256],
    [16, 384],
  ] as const) {
    expect(sameBits(run(batch, capacity), alone)).toBe(true);
  }
  s.dispose();
});

test("fact: a softmax whose parts move by a multiple of 64 columns, the gap masked, is the same", () => {
  const s = session((g) =>
    g.output(g.node("Identity", [softmax(g, g.input("x", "float", [4, "N"]))], { names: ["y"] })),
  );
  const [first, second] = [40, 70];
  const values = noise(4 * (first + second), 4);
  const run = (room: number, tail: number): Float32Array => {
    const width = room + tail;
    const x = new Float32Array(4 * width).fill(-1e30);
    for (let row = 0; row < 4; row++) {
      const own = values.subarray(row * (first + second), (row + 1) * (first + second));
      x.set(own.subarray(0, first), row * width);
      x.set(own.subarray(first), row * width + room);
    }
    const y = s.run({ x: floats([4, width], x) }, ["y"]).y as Float32Array;
    return Float32Array.from(
      [0, 1, 2, 3].flatMap((row) => [
        ...y.subarray(row * width, row * width + first),
        ...y.subarray(row * width + room, row * width + room + second),
      ]),
    );
  };
  const expected = run(64, 128);
  for (const [room, tail] of [
    [128, 128],
    [320, 128],
    [64, 192],
    [1024, 640],
  ] as const) {
    expect(sameBits(run(room, tail), expected)).toBe(true);
  }
  s.dispose();
});
