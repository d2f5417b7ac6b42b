import { mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { cast } from "../../src/graph/ops/math.ts";
import { session } from "./fixture.ts";

let directory: string;
beforeAll(async () => {
  directory = await realpath(await mkdtemp(path.join(tmpdir(), "preceptor-ort-")));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

test("fact: external data may lie at any offset of any file below the folder option, unaligned, in bf16 too", async () => {
  const file = path.join(directory, "weights.bin");
  const values = Float32Array.of(1, -2, 3.5, 0.25);
  const bf16 = Uint16Array.from(new Uint32Array(values.buffer), (word) => word >>> 16);
  const bytes = Buffer.alloc(13 + 16 + 7 + 8);
  Buffer.from(values.buffer).copy(bytes, 13);
  Buffer.from(bf16.buffer).copy(bytes, 36);
  await writeFile(file, bytes);
  const location = file.replace(/^\/+/, "");
  const s = session((g) => {
    const wide = g.external("wide", "float", [4], { location, offset: 13, bytes: 16 });
    const half = g.external("half", "bfloat16", [4], { location, offset: 36, bytes: 8 });
    g.output(g.node("Add", [wide, cast(g, half, "float")], { names: ["sum"] }));
  });
  expect(s.run({}, ["sum"]).sum).toEqual(values.map((v) => v * 2));
  s.dispose();
});

test("fact: a file that ends before its tensor is refused at load", async () => {
  const file = path.join(directory, "short.bin");
  await writeFile(file, Buffer.alloc(8));
  const build = (): unknown =>
    session((g) => {
      const location = file.replace(/^\/+/, "");
      g.output(g.node("Neg", [g.external("w", "float", [4], { location, offset: 0, bytes: 16 })], { names: ["y"] }));
    });
  expect(build).toThrow(expect.objectContaining({ code: "engine_failed" }));
});
