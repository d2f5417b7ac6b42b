import { type ChildProcess, spawn } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, truncate, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Precision } from "../../src/engine/engine.ts";
import { type PackedWeights, packedWeights } from "../../src/engine/onnx/packed-weights.ts";
import { pack } from "../../src/engine/onnx/packing/pack.ts";
import { diskBytes, piecesOf } from "../../src/engine/onnx/packing/pieces.ts";
import { requireRoom } from "../../src/engine/onnx/packing/room.ts";
import { createSession, tensor } from "../../src/engine/onnx/runtime.ts";
import { createGraph } from "../../src/graph/builder.ts";
import { matricesOf, type PackedMatrix } from "../../src/graph/matrices.ts";
import { encodeModel } from "../../src/graph/proto/onnx.ts";
import { SCHEMES } from "../../src/graph/quantise.ts";
import { createWeights } from "../../src/graph/weights.ts";
import type { Checkpoint } from "../../src/model/checkpoint.ts";
import { openCheckpoint } from "../../src/model/open.ts";
import { farthest, goldenDirectory } from "./fixture.ts";
import { writeRandomCheckpoint } from "./random-checkpoint.ts";

let root: string;
let checkpoint: Checkpoint;
/** 14 million weights: large enough to be measured, and to be killed over. */
let larger: string;
beforeAll(async () => {
  root = await mkdtemp(path.join(tmpdir(), "preceptor-packed-"));
  checkpoint = await openCheckpoint(goldenDirectory("qwen2"));
  larger = path.join(root, "larger");
  const attention = { heads: 8, kvHeads: 4, layers: 4, maxPositions: 512 };
  const sizes = { vocabSize: 4096, hiddenSize: 512, intermediateSize: 1408 };
  await writeRandomCheckpoint(larger, { ...attention, ...sizes, tied: true, dtype: "BF16", scale: 0.05 });
});
afterAll(() => rm(root, { recursive: true, force: true }));

let cacheDir: string;
beforeEach(async () => {
  cacheDir = await mkdtemp(path.join(root, "cache-"));
});

const ROWS = 6;

/** What each matrix makes of the same rows. */
function products(matrices: ReadonlyMap<string, PackedMatrix> | null): Record<string, Float32Array> {
  const g = createGraph("products");
  const weights = createWeights(g, checkpoint, matrices);
  const all = matricesOf(checkpoint.config);
  const feeds = all.map(({ name, columns }) => {
    const x = Float32Array.from({ length: ROWS * columns }, (_, i) => Math.sin(i * 1.3 + columns));
    return [`${name}.x`, tensor("float32", [ROWS, columns], x)] as const;
  });
  for (const matrix of all) {
    g.output(weights.product(g.input(`${matrix.name}.x`, "float", ["N", matrix.columns]), matrix, matrix.name));
  }
  const session = createSession(encodeModel(g.build()), { threads: 2, device: "cpu" });
  const outputs = session.run(
    Object.fromEntries(feeds),
    all.map(({ name }) => name),
  );
  session.dispose();
  return outputs as Record<string, Float32Array>;
}

describe.each([
  ["fp32", 0],
  ["q8", 0.03],
  ["q8_0", 0.03],
  ["q4", 0.25],
  ["q4_0", 0.25],
] as const)("%s", (precision, allowed) => {
  test("products by packed matrices are those by the checkpoint's weights, as far as the precision goes", async () => {
    const { matrices } = await packedWeights(checkpoint, precision, cacheDir);
    const [actual, expected] = [products(matrices), products(null)];
    for (const { name } of matricesOf(checkpoint.config)) {
      const most = Math.max(...expected[name]!.map(Math.abs));
      expect(farthest(actual[name]!, expected[name]!)).toBeLessThanOrEqual(allowed * most);
    }
  });

  test("it takes no more of the disk than was asked for, and says what is mapped", async () => {
    const { directory, bytes } = await packedWeights(checkpoint, precision, cacheDir);
    const { size, blocks } = await stat(path.join(directory, "weights.bin"));
    const scheme = precision === "fp32" ? null : SCHEMES[precision];
    const matrices = matricesOf(checkpoint.config).map((matrix) => ({ ...matrix, scheme }));
    // The head takes 8 bits where the others take 4.
    const head = matrices.at(-1)!;
    if (precision.startsWith("q4")) head.scheme = SCHEMES.q8_0;
    expect(bytes).toBeLessThan(size);
    const pages = 3 * 4096 * (matrices.length + 1);
    expect(blocks * 512).toBeLessThan(diskBytes(matrices) + pages);
    expect((await readdir(directory)).sort()).toEqual(["index.json", "weights.bin"]);
  });
});

const open = (precision: Precision = "q8"): Promise<PackedWeights> => packedWeights(checkpoint, precision, cacheDir);
const written = async ({ directory }: PackedWeights): Promise<number> =>
  (await stat(path.join(directory, "weights.bin"))).mtimeMs;
const contents = (): Promise<string[]> => readdir(path.join(cacheDir, "packed"));

test("what was written once is used again, and each precision has its own", async () => {
  const first = await open();
  const time = await written(first);
  const again = await open();
  expect(again).toEqual(first);
  expect(await written(again)).toBe(time);
  expect((await open("q4")).key).not.toBe(first.key);
});

describe("a damaged directory is written anew", () => {
  const index = ({ directory }: PackedWeights): string => path.join(directory, "index.json");
  const changeIndex = async (packed: PackedWeights, from: RegExp, to: string): Promise<void> => {
    const text = await readFile(index(packed), "utf8");
    expect(text).toMatch(from);
    await writeFile(index(packed), text.replace(from, to));
  };
  const damages: [string, (packed: PackedWeights) => Promise<void>][] = [
    ["data cut off", ({ directory }) => truncate(path.join(directory, "weights.bin"), 5000)],
    ["no data", ({ directory }) => rm(path.join(directory, "weights.bin"))],
    ["index cut off", (packed) => truncate(index(packed), 100)],
    ["no index", (packed) => rm(index(packed))],
    ["a matrix is missing", (packed) => changeIndex(packed, /"layers\.0\.o"/, '"layers.9.o"')],
    ["another scheme", (packed) => changeIndex(packed, /"block":128/, '"block":32')],
    ["beyond the end", (packed) => changeIndex(packed, /"offset":\d+/, '"offset":99999999')],
    ["other results than when it was packed", (packed) => changeIndex(packed, /"digest":"\w\w/, '"digest":"xx')],
    ["names that the kernels do not arrive at", (packed) => changeIndex(packed, /MatMulNBits\+/g, "MatMulNBits+9")],
  ];

  test.each(damages)("%s", async (_, damage) => {
    const packed = await open();
    const expected = products(packed.matrices);
    await damage(packed);
    const repaired = await open();
    expect(repaired).toEqual(packed);
    expect(products(repaired.matrices)).toEqual(expected);
    expect(await contents()).toEqual([packed.key]);
  });
});

describe("a matrix that ONNX Runtime has no packed form of is mapped as it is", () => {
  test("on a machine whose kernels do not hand over what they packed", async () => {
    let calls = 0;
    // The first two sessions are those that write.
    const guard = <T>(work: () => T): T => {
      if (++calls <= 2) throw new Error("no packed form");
      return work();
    };
    const plain = await packedWeights(checkpoint, "q8", cacheDir, guard);
    expect([...plain.matrices.values()].filter(({ weight }) => weight.data.prepacked !== undefined)).toEqual([]);
    const packed = await packedWeights(checkpoint, "q8", path.join(cacheDir, "other"));
    expect(products(plain.matrices)).toEqual(products(packed.matrices));
  });

  test("the second of two equal ones", async () => {
    const [first] = matricesOf(checkpoint.config);
    const matrices = ["a", "b"].map((name) => ({ ...first!, name, scheme: null }));
    const index = await pack({ tensors: checkpoint.tensors, matrices, directory: cacheDir });
    expect(index.matrices.a!.weight.data.prepacked).toBeDefined();
    expect(index.matrices.b!.weight.data.prepacked).toBeUndefined();
    const bytes = first!.rows * first!.columns * 4;
    expect(index.mappedBytes).toBeGreaterThanOrEqual(2 * bytes);
  });
});

test("of several that write at once one wins and all use it", async () => {
  const all = await Promise.all([open(), open(), open()]);
  expect(all[1]).toEqual(all[0]);
  expect(all[2]).toEqual(all[0]);
  expect(await contents()).toEqual([all[0].key]);
});

test("a cache directory that cannot be written is an error that says so", async () => {
  const file = path.join(cacheDir, "file");
  await writeFile(file, "");
  const packed = packedWeights(checkpoint, "q8", file);
  await expect(packed).rejects.toThrow(expect.objectContaining({ code: "engine_failed" }));
  await expect(packed).rejects.toThrow(/cache; check its disk space and rights/);
});

test("too little room on the disk is an error with both numbers, before anything is written", async () => {
  await expect(requireRoom(cacheDir, 1e18)).rejects.toThrow(/takes 11\d{11} MB .* has \d+ MB free/);
  await expect(requireRoom(cacheDir, 0)).resolves.toBeUndefined();
});

test("leftovers of processes that died are removed after a day, not before", async () => {
  const [old, recent] = ["a.tmp", "b.tmp"].map((name) => path.join(cacheDir, "packed", name)) as [string, string];
  for (const directory of [old, recent]) await mkdir(directory, { recursive: true });
  const yesterday = new Date(Date.now() - 25 * 60 * 60 * 1000);
  await utimes(old, yesterday, yesterday);
  const { key } = await open();
  expect((await contents()).sort()).toEqual([key, "b.tmp"].sort());
});

test("a model is packed in pieces of 64 MB, a matrix at least", () => {
  const sizes = [10, 50, 10, 300, 1, 63, 1];
  const matrices = sizes.map((size, i) => ({ name: `${i}`, parts: [], rows: size * 2 ** 8, columns: 2 ** 10 }));
  const pieces = piecesOf(matrices).map((piece) => piece.map(({ rows }) => rows / 2 ** 8));
  expect(pieces).toEqual([[10, 50], [10], [300], [1, 63], [1]]);
});

describe("in processes of their own", () => {
  function child(precision: Precision): ChildProcess {
    const file = fileURLToPath(new URL("./packed-child.ts", import.meta.url));
    return spawn(process.execPath, ["--import", "tsx", file, larger, precision, cacheDir]);
  }
  async function outcome(process: ChildProcess): Promise<{ stdout: string; stderr: string; code: number | null }> {
    const text = { stdout: "", stderr: "" };
    process.stdout!.on("data", (chunk) => (text.stdout += chunk));
    process.stderr!.on("data", (chunk) => (text.stderr += chunk));
    const code = await new Promise<number | null>((resolve) => process.on("close", resolve));
    return { ...text, code };
  }

  test("killed while it writes, it leaves nothing that is taken for weights", async () => {
    const killed = child("fp32");
    const ended = outcome(killed);
    while ((await contents().catch(() => [])).length === 0) await sleep(2);
    killed.kill("SIGKILL");
    await ended;
    expect(await contents()).toEqual([expect.stringMatching(/\.tmp$/)]);
    expect(await outcome(child("fp32"))).toMatchObject({ code: 0 });
    expect((await contents()).filter((name) => !name.endsWith(".tmp"))).toHaveLength(1);
  });

  test.skipIf(process.platform !== "linux").each(["fp32", "q8", "q4", "q8_0", "q4_0"] as const)(
    "%s: a second process maps them with next to no memory of its own, and nothing is printed",
    async (precision) => {
      const first = await outcome(child(precision));
      const second = await outcome(child(precision));
      expect([first.stderr, second.stderr]).toEqual(["", ""]);
      const { key, bytes, grown } = JSON.parse(second.stdout);
      expect(key).toBe(JSON.parse(first.stdout).key);
      expect(grown).toBeLessThan(bytes / 4);
    },
  );
});
