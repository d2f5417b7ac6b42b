/** Figures of a model: measured once, kept, measured anew when there is more to measure. The engine pretends. */
import { mkdtemp, readdir, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { describeQuality } from "../../src/cli/commands/models-inspect-quality.ts";
import { type Quality, type QualityDeps, qualityOf } from "../../src/cli/quality/quality.ts";
import type { Precision } from "../../src/engine/engine.ts";
import { estimateBytes } from "../../src/engine/placement.ts";
import { fail } from "../../src/errors.ts";
import type { Checkpoint } from "../../src/model/checkpoint.ts";
import { openCheckpoint } from "../../src/model/open.ts";
import { createFakeEngine, createFakeText } from "../api/fakes.ts";

const ALL: Precision[] = ["fp32", "q8_0", "q8", "q4_0", "q4"];

let cacheDir = "";
let checkpoint: Checkpoint;
let opened: string[] = [];
beforeEach(async () => {
  cacheDir = await mkdtemp(path.join(tmpdir(), "preceptor-quality-"));
  checkpoint = await openCheckpoint(fileURLToPath(new URL("../golden/models/llama", import.meta.url)));
  opened = [];
});
afterEach(() => rm(cacheDir, { recursive: true, force: true }));

const budgetOf = (precision: Precision): number => estimateBytes(checkpoint, { precision });

function measure(more: Partial<QualityDeps> = {}): Promise<Quality> {
  return qualityOf(checkpoint, {
    createEngine: (deps) => ({
      async open(_, { precision, contextLength }) {
        opened.push(precision);
        await writeFile(path.join(path.dirname(deps.cacheDir), precision), "packed");
        return createFakeEngine({ contextLength, vocabSize: 512 });
      },
    }),
    text: { open: async () => createFakeText(), close: async () => undefined },
    cacheDir,
    budgetBytes: 2 ** 40,
    threads: 1,
    ...more,
  });
}

const files = () => readdir(path.join(cacheDir, "quality"));

test("every precision is opened once, in turn, and the figures are there the next time", async () => {
  const shown: string[] = [];
  const first = await measure({ onMeasure: (precision, index, all) => shown.push(`${precision} ${index + 1}/${all}`) });
  expect(opened).toEqual(ALL);
  expect(shown).toEqual(["fp32 1/5", "q8_0 2/5", "q8 3/5", "q4_0 4/5", "q4 5/5"]);
  // The pretended engine computes the same at every precision.
  expect(first).toMatchObject({ tokens: 1024, reference: "fp32", too_large: [] });
  expect(first).toMatchObject({ precisions: ALL.map((precision) => ({ precision, same_best_token: 1 })) });
  const [file, ...rest] = await files();
  expect(file).toContain(checkpoint.weightsHash.replace("sha256:", ""));
  expect(rest).toEqual([]);
  expect(await measure()).toEqual(first);
  expect(opened).toHaveLength(ALL.length);
});

test("damaged figures are measured anew, those of another model are others", async () => {
  await measure();
  const [file] = await files();
  await writeFile(path.join(cacheDir, "quality", file!), '{"tokens":3,"reference":"fp32","precisions":[]}');
  await measure();
  expect(opened).toHaveLength(2 * ALL.length);
  checkpoint = { ...checkpoint, weightsHash: "sha256:other" };
  await measure();
  expect(opened).toHaveLength(3 * ALL.length);
  expect(await files()).toHaveLength(2);
});

test("what exceeds the memory budget is left out; with more memory there is more to measure, with less it stays known", async () => {
  const little = await measure({ budgetBytes: budgetOf("q8_0") });
  expect(opened).toEqual(ALL.slice(1));
  expect(little).toMatchObject({ reference: "q8_0", too_large: ["fp32"] });
  const text = describeQuality(little, { budgetBytes: budgetOf("q8_0"), needs: budgetOf });
  expect(text).toContain("against q8_0");
  expect(text).toMatch(/fp32 is not measured: it needs about 64\.5 MiB, PRECEPTOR_MODEL_MEMORY allows 64\.2 MiB/);
  opened = [];
  expect(await measure()).toMatchObject({ reference: "fp32", too_large: [] });
  expect(await measure({ budgetBytes: budgetOf("q8_0") })).toMatchObject({ reference: "fp32", too_large: [] });
  expect(opened).toEqual(ALL);
  expect(await measure({ budgetBytes: 1000 })).toEqual({ not_measured: expect.stringContaining("MODEL_MEMORY") });
});

test("a failure is a reason, is not kept, and leaves nothing behind", async () => {
  const broken = await measure({
    createEngine: () => ({ open: () => Promise.reject(fail("engine_failed", "the disk is full")) }),
  });
  expect(broken).toEqual({ not_measured: "the disk is full" });
  expect(await files()).toEqual([]);
  expect(describeQuality(broken, { budgetBytes: 1, needs: () => 1 })).toBe(
    "Quality of each precision: not measured (the disk is full).\n",
  );
  const stopped = new AbortController();
  stopped.abort();
  await expect(measure({ signal: stopped.signal })).rejects.toThrow();
  expect(opened).toEqual([]);
  const left = path.join(cacheDir, "quality", ".measuring-old");
  await writeFile(left, "");
  await utimes(left, 1, 1);
  await measure();
  expect(await files()).toHaveLength(1);
});
