import { mkdtemp, open, readFile, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createSession, type PackTarget, type Session } from "../../src/engine/onnx/runtime.ts";
import { createGraph, type GraphBuilder } from "../../src/graph/builder.ts";
import type { ExternalData, Value } from "../../src/graph/ir.ts";
import { matmulTransposed } from "../../src/graph/ops/math.ts";
import { matmulQuantised } from "../../src/graph/ops/quantised.ts";
import { encodeModel } from "../../src/graph/proto/onnx.ts";
import { readExternalData } from "../../src/graph/proto/read.ts";
import { blockBytes, blocksOf, quantiseRows, SCHEMES, type Scheme } from "../../src/graph/quantise.ts";
import { externalLocation } from "../../src/graph/weights.ts";
import { floats, noise, sameBits } from "./fixture.ts";

/** What engine/onnx/packing rests on. */

const [ROWS, COLUMNS] = [192, 320];
const SCHEME_NAMES = ["fp32", ...Object.keys(SCHEMES)] as ("fp32" | keyof typeof SCHEMES)[];

let directory: string;
beforeAll(async () => {
  directory = await realpath(await mkdtemp(path.join(tmpdir(), "preceptor-ort-")));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const at = (name: string): string => path.join(directory, name);

interface Case {
  scheme: Scheme | null;
  weight: Uint8Array;
  scales: Uint8Array;
  zeros: Uint8Array;
}

function caseOf(name: "fp32" | keyof typeof SCHEMES): Case {
  const values = noise(ROWS * COLUMNS, 3);
  const none = new Uint8Array(0);
  if (name === "fp32") return { scheme: null, weight: new Uint8Array(values.buffer), scales: none, zeros: none };
  const { packed, scales, zeros } = quantiseRows(values, COLUMNS, SCHEMES[name]);
  return { scheme: SCHEMES[name], weight: packed, scales: new Uint8Array(scales.buffer), zeros };
}

/** x · Wᵀ with W in a file. */
function product({ scheme, scales, zeros }: Case, weight: ExternalData, packTo?: PackTarget): Session {
  const g = createGraph("fact");
  const x = g.input("x", "float", ["N", COLUMNS]);
  g.output(scheme ? quantised(g, x, scheme) : matmulTransposed(g, x, outside("float", [ROWS, COLUMNS]), 1, "y"));
  return createSession(encodeModel(g.build()), { threads: 1, device: "cpu", ...(packTo ? { packTo } : {}) });

  function outside(type: "float" | "uint8", dims: number[]): Value {
    return g.external("w", type, dims, weight);
  }
  function quantised(b: GraphBuilder, input: Value, by: Scheme): Value {
    const blocks = blocksOf(COLUMNS, by);
    const value = {
      scheme: by,
      rows: ROWS,
      columns: COLUMNS,
      packed: outside("uint8", [ROWS, blocks, blockBytes(by)]),
      scales: b.constant("float", [ROWS * blocks], scales),
      zeros: by.zeroPoints ? b.constant("uint8", [zeros.length], zeros) : null,
    };
    return matmulQuantised(b, input, value, "y");
  }
}

async function file(name: string, bytes: Uint8Array): Promise<ExternalData> {
  await writeFile(at(name), bytes);
  return { location: externalLocation(at(name)), offset: 0, bytes: bytes.length };
}

/** As the runtime writes them: the key, and the bytes that the kernel packed. */
async function packed(of: Case, weight: ExternalData): Promise<{ key: string; blob: Uint8Array }> {
  product(of, weight, { model: at("packed.onnx"), data: "packed.bin" }).dispose();
  const { prepacked_0: entry = "" } = readExternalData(await readFile(at("packed.onnx"))).get("w") ?? {};
  const [key = "", ...blobs] = entry.split("|");
  expect(blobs).toHaveLength(1);
  const [offset = 0, bytes = 0] = blobs[0]!.split(";").map(Number);
  return { key, blob: (await readFile(at("packed.bin"))).subarray(offset, offset + bytes) };
}

const x = floats([4, COLUMNS], noise(4 * COLUMNS, 9));
function run(session: Session): Float32Array {
  const { y } = session.run({ x }, ["y"]);
  session.dispose();
  return y as Float32Array;
}

describe.each(SCHEME_NAMES)("%s", (name) => {
  /** A file with a hole, marked at its end, and the packed weights behind it at a multiple of 64. */
  async function holeAndPacked(): Promise<{ of: Case; plain: ExternalData; standIn: ExternalData; from: string }> {
    const of = caseOf(name);
    const plain = await file("plain.bin", of.weight);
    const { blob } = await packed(of, plain);
    const start = Math.ceil(of.weight.length / 64) * 64;
    const handle = await open(at("weights.bin"), "w");
    await handle.write(Uint8Array.of(1), 0, 1, 40);
    await handle.write(blob, 0, blob.length, start);
    await handle.close();
    const standIn = { location: externalLocation(at("weights.bin")), offset: 0, bytes: of.weight.length };
    return { of, plain, standIn, from: `${start};${blob.length};0` };
  }

  test("fact: a session with packed weights does not read the originals: it packs a hole, and looks for that name", async () => {
    const { of, plain, standIn, from } = await holeAndPacked();
    const { key } = await packed(of, standIn);
    const expected = run(product(of, plain));
    expect(sameBits(run(product(of, { ...standIn, prepacked: `${key}|${from}` })), expected)).toBe(true);
  });

  test("fact: packed weights under a name that the kernel does not arrive at are ignored in silence", async () => {
    const { of, plain, standIn, from } = await holeAndPacked();
    const { key } = await packed(of, plain);
    const ofHole = run(product(of, standIn));
    expect(sameBits(run(product(of, { ...standIn, prepacked: `${key}|${from}` })), ofHole)).toBe(true);
    expect(sameBits(run(product(of, plain)), ofHole)).toBe(false);
  });
});

/** Memory of the process that no file backs. */
async function anonymousBytes(): Promise<number> {
  const status = await readFile("/proc/self/status", "utf8");
  return Number(/RssAnon:\s+(\d+)/.exec(status)![1]) * 1024;
}

test.skipIf(process.platform !== "linux")("fact: packed weights are mapped, not copied", async () => {
  const [rows, columns] = [8192, 2048];
  const bytes = rows * columns * 4;
  const handle = await open(at("large.bin"), "w");
  const chunk = noise(columns * 64);
  for (let row = 0; row < rows; row += 64) await handle.write(new Uint8Array(chunk.buffer));
  await handle.close();
  const load = (data: ExternalData, packTo?: PackTarget): Session => {
    const g = createGraph("fact");
    g.output(
      matmulTransposed(g, g.input("x", "float", ["N", columns]), g.external("w", "float", [rows, columns], data)),
    );
    return createSession(encodeModel(g.build()), { threads: 1, device: "cpu", ...(packTo ? { packTo } : {}) });
  };
  const plain = { location: externalLocation(at("large.bin")), offset: 0, bytes };
  load(plain, { model: at("large.onnx"), data: "large-packed.bin" }).dispose();
  const entries = readExternalData(await readFile(at("large.onnx"))).get("w")!;
  const grown = async (data: ExternalData): Promise<number> => {
    const before = await anonymousBytes();
    const session = load(data);
    const after = await anonymousBytes();
    session.dispose();
    return after - before;
  };
  const written = { location: externalLocation(at("large-packed.bin")), offset: Number(entries.offset), bytes };
  expect(await grown({ ...written, prepacked: entries.prepacked_0! })).toBeLessThan(bytes / 4);
  expect(await grown(plain)).toBeGreaterThan(bytes / 2);
});
