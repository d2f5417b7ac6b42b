import { expect, test } from "vitest";
import { createGraph } from "../../../src/graph/builder.ts";
import { encodeModel } from "../../../src/graph/proto/onnx.ts";
import { readExternalData } from "../../../src/graph/proto/read.ts";

function model(): Uint8Array {
  const g = createGraph("test");
  const data = { location: "ä/weights.bin", offset: 2 ** 40, bytes: 24 };
  const a = g.external("a", "float", [2, 3], { ...data, prepacked: "FusedMatMul+1|64;24;0" });
  const b = g.external("b.weight", "bfloat16", [3, 4], data);
  g.output(g.node("MatMul", [a, b, g.float(-1.5), g.int64s([-1])], { attributes: { x: { ints: [-1, 300] } } }));
  return encodeModel(g.build());
}

test("the external data entries of every initializer come back, and only theirs", () => {
  const data = { location: "ä/weights.bin", offset: "1099511627776", length: "24" };
  const found = readExternalData(model());
  expect(found.get("a")).toEqual({ ...data, prepacked_0: "FusedMatMul+1|64;24;0" });
  expect(found.get("b.weight")).toEqual(data);
  expect([...found.values()].filter((entries) => "location" in entries)).toHaveLength(2);
});

test("fields of every kind are skipped", () => {
  const unknown = [0x08, 0xff, 0xff, 0xff, 0x0f, 0x11, 1, 2, 3, 4, 5, 6, 7, 8, 0x1d, 1, 2, 3, 4, 0x22, 2, 9, 9];
  expect(readExternalData(new Uint8Array([...unknown, ...model()])).get("a")).toHaveProperty("offset");
});

test("a model that ends early, or is none, is an error", () => {
  const whole = model();
  for (const length of [1, 40, whole.length - 30]) {
    expect(() => readExternalData(whole.subarray(0, length))).toThrow(
      expect.objectContaining({ code: "engine_failed" }),
    );
  }
  expect(() => readExternalData(new Uint8Array([0x0b]))).toThrow(expect.objectContaining({ code: "engine_failed" }));
});
