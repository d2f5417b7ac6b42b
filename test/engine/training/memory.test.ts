import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { runBytes } from "../../../src/engine/onnx/training/memory.ts";
import type { ModelConfig } from "../../../src/model/checkpoint.ts";
import type { RandomShape } from "../random-checkpoint.ts";
import type { MemoryRequest } from "./memory-child.ts";

/**
 * The runtime orders nodes as it likes and merges what is equal (engine.md 4); either would keep all values of all layers
 * in spite of recomputing them, with the same results. Only the memory of a process shows it.
 */

const CHILD = fileURLToPath(new URL("./memory-child.ts", import.meta.url));
const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const SHAPE: RandomShape = {
  vocabSize: 512,
  hiddenSize: 256,
  intermediateSize: 1024,
  layers: 16,
  heads: 4,
  kvHeads: 2,
  maxPositions: 1024,
  tied: true,
  dtype: "BF16",
  scale: 0.05,
};
const [SEQUENCES, LENGTH] = [4, 256];

async function grownBytes(recompute: boolean): Promise<number> {
  const request: MemoryRequest = { shape: SHAPE, sequences: SEQUENCES, length: LENGTH, recompute };
  const args = ["--import", "tsx", CHILD, JSON.stringify(request)];
  return Number((await promisify(execFile)(process.execPath, args, { cwd: ROOT })).stdout);
}

function estimate(recompute: boolean): number {
  const config = { ...SHAPE, headDim: SHAPE.hiddenSize / SHAPE.heads } as unknown as ModelConfig;
  return runBytes(config, { rows: SEQUENCES * LENGTH, pairs: SEQUENCES * LENGTH ** 2 }, recompute);
}

test.runIf(process.platform === "linux")(
  "layers computed again save memory, and as much is needed as was estimated",
  async () => {
    const kept = await grownBytes(false);
    const again = await grownBytes(true);
    // Measured: 425 and 75 MiB.
    expect(again).toBeLessThan(kept / 3);
    for (const [measured, estimated] of [
      [kept, estimate(false)],
      [again, estimate(true)],
    ] as const) {
      expect(measured).toBeLessThan(1.4 * estimated);
      expect(measured).toBeGreaterThan(estimated / 2.5);
    }
  },
  60_000,
);
