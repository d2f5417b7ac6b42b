/** One `forwardBackward` in a process of its own; prints how far memory grew above what it was before. Arguments: JSON. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { initialLora } from "../../../src/engine/onnx/training/lora.ts";
import { loraParameters } from "../../../src/engine/onnx/training/parameters.ts";
import { createTrainer } from "../../../src/engine/onnx/training/trainer.ts";
import { openCheckpoint } from "../../../src/model/open.ts";
import { linearShapes } from "../../../src/model/tensors.ts";
import { processBytes } from "../../bench/process-memory.ts";
import { type RandomShape, writeRandomCheckpoint } from "../random-checkpoint.ts";

export interface MemoryRequest {
  shape: RandomShape;
  sequences: number;
  length: number;
  recompute: boolean;
}

async function measure({ shape, sequences, length, recompute }: MemoryRequest): Promise<number> {
  const directory = await mkdtemp(path.join(tmpdir(), "preceptor-training-memory-"));
  try {
    await writeRandomCheckpoint(directory, shape);
    const checkpoint = await openCheckpoint(directory);
    const { config } = checkpoint;
    const lora = { rank: 4, alpha: 8, rsLora: false, targets: Object.keys(linearShapes(config)), seed: 1 };
    const trainer = createTrainer({
      checkpoint,
      parameters: loraParameters(config, initialLora(config, lora)),
      memory: { fits: () => true, recompute: () => recompute },
      options: { threads: 2, device: "cpu" },
    });
    const texts = (count: number, tokens: number) =>
      Array.from({ length: count }, (_, b) => ({
        ids: Int32Array.from({ length: tokens }, (__, t) => 3 + ((b + t) % 200)),
        weights: new Float32Array(tokens).fill(1),
      }));
    // Sessions and code are there, and the weights' pages are mapped, before anything is counted.
    await trainer.forwardBackward(texts(1, 8), { loss: "cross_entropy" });
    const before = processBytes(process.pid, "VmRSS")!;
    await trainer.forwardBackward(texts(sequences, length), { loss: "cross_entropy" });
    const peak = processBytes(process.pid, "VmHWM")!;
    trainer.dispose();
    return peak - before;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

process.stdout.write(`${await measure(JSON.parse(process.argv[2] ?? "") as MemoryRequest)}\n`);
