import { expect, test } from "vitest";
import { needsEvenRows } from "../../src/engine/onnx/row-order.ts";
import { matmulQuantised } from "../../src/graph/ops/quantised.ts";
import { quantiseRows, SCHEMES } from "../../src/graph/quantise.ts";
import { floats, noise, sameBits, session } from "./fixture.ts";

/** Why the engine multiplies an even number of rows where the kernel needs it, and that it finds out where that is. */
test.each(["q8", "q4", "q8_0", "q4_0"] as const)(
  "fact: rows of a %s product are the same for any even number of them, and for any at all where needsEvenRows says so",
  (name) => {
    const [K, N, MOST] = [576, 192, 96];
    const scheme = SCHEMES[name];
    const { packed, scales, zeros } = quantiseRows(noise(N * K, 3), K, scheme);
    const blocks = Math.ceil(K / scheme.block);
    const s = session((g) => {
      const bytes = (data: Float32Array): Uint8Array => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      const parts = {
        packed: g.constant("uint8", [N, blocks, packed.length / (N * blocks)], packed),
        scales: g.constant("float", [N * blocks], bytes(scales)),
        zeros: scheme.zeroPoints ? g.constant("uint8", [zeros.length], zeros) : null,
      };
      g.output(matmulQuantised(g, g.input("x", "float", ["M", K]), { scheme, rows: N, columns: K, ...parts }, "y"));
    });
    const x = noise(MOST * K, 5);
    const whole = s.run({ x: floats([MOST, K], x) }, ["y"]).y as Float32Array;
    const odd = needsEvenRows(scheme, { threads: 2, device: "cpu" }) ? [] : [1, 3, 5, 7, 15, 33, 65, 95];
    for (const M of [2, 4, 6, 14, 32, 34, 64, ...odd]) {
      const part = s.run({ x: floats([M, K], x) }, ["y"]).y as Float32Array;
      expect(sameBits(part, whole.subarray(0, M * N))).toBe(true);
    }
    s.dispose();
  },
);
