import { mkdtemp, rm } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import type { ModelConfig } from "../../src/model/checkpoint.ts";
import { openCheckpoint } from "../../src/model/open.ts";
import { linearShapes } from "../../src/model/tensors.ts";
import { matmulRate } from "./matmul-rate.ts";
import { runPeer } from "./peers/child.ts";
import { measurePeft } from "./peers/peft.ts";
import { mebibytes } from "./process-memory.ts";
import { writeRandomModel } from "./random-model.ts";
import { benchRltStep } from "./rlt-step.ts";

/** LoRA training steps (forward, backward, AdamW) of the embedded engine, beside PEFT on the same weights and batches. */

export interface TrainCase {
  name: string;
  sequences: number;
  /** Tokens that all sequences begin with and nothing is learnt from; 0: each has its own text. */
  prompt: number;
  /** Tokens of each sequence behind them. */
  length: number;
  /** Sequences that the peer computes at a time: more would not fit beside what it keeps. */
  peerBatch: number;
  repetitions: number;
}

const CASES: readonly TrainCase[] = [
  { name: "1 sequence of 256 tokens", sequences: 1, prompt: 0, length: 256, peerBatch: 1, repetitions: 4 },
  { name: "4 sequences of 256 tokens", sequences: 4, prompt: 0, length: 256, peerBatch: 4, repetitions: 3 },
  {
    name: "16 continuations of 128 tokens of one prompt of 300",
    sequences: 16,
    prompt: 300,
    length: 128,
    peerBatch: 4,
    repetitions: 2,
  },
];

export const LORA = { rank: 16, alpha: 32 } as const;

/** What our child is told. */
export interface TrainSettings {
  directory: string;
  threads: number;
  run: TrainCase;
}

/** Of the fastest repetition; bytes as /proc counts them. */
export const trainFigures = z.object({
  stepSeconds: z.number(),
  /** Resident before weights were opened, before the first step, and at the highest point. */
  emptyBytes: z.number(),
  loadedBytes: z.number(),
  peakBytes: z.number(),
});
export type TrainFigures = z.infer<typeof trainFigures>;

const phases = z.object({
  /** Seconds of one step. */
  native: z.number(),
  feeds: z.number(),
  gradients: z.number(),
  adamw: z.number(),
});
const ourFigures = trainFigures.extend({ phases, runs: z.number() });

const CHILD = fileURLToPath(new URL("./train-child.ts", import.meta.url));

export interface TrainBenchOptions {
  /** Checkpoint directory; a random one of SmolLM2-135M's shape when absent. */
  directory?: string;
  threads?: number;
  peers?: boolean;
}

export async function benchTrain(options: TrainBenchOptions, print: (line: string) => void): Promise<void> {
  const threads = options.threads ?? availableParallelism();
  const scratch = await mkdtemp(path.join(tmpdir(), "preceptor-bench-train-"));
  try {
    const directory = options.directory ?? path.join(scratch, "smollm2-135m-random");
    if (!options.directory) await writeRandomModel(directory);
    const { config } = await openCheckpoint(directory);
    print(`${threads} threads; model: ${options.directory ?? "random weights of SmolLM2-135M's shape"}`);
    print(`LoRA rank ${LORA.rank}, alpha ${LORA.alpha}, all seven linear maps; cross entropy, clipping, AdamW`);
    print(FORMULA);
    for (const run of CASES) {
      print("");
      print(run.name);
      const settings: TrainSettings = { directory, threads, run };
      const before = matmulRate(threads);
      const args = ["--import", "tsx", CHILD, JSON.stringify(settings)];
      const ours = ourFigures.parse(await runPeer(process.execPath, args));
      report("Preceptor", run, ours, print);
      const { native, feeds, gradients, adamw } = ours.phases;
      const rest = ours.stepSeconds - native - feeds - gradients - adamw;
      const ms = (seconds: number): string => `${(1000 * seconds).toFixed(0)} ms`;
      print(
        `  one step: ${ours.runs} run(s) ${ms(native)}; JavaScript: adding gradients ${ms(gradients)}, AdamW ${ms(adamw)}, ` +
          `LoRA feeds ${ms(feeds)}, the rest ${ms(rest)}`,
      );
      // On both sides of the run: a neighbour on the same machine may have slowed one of them.
      const rate = Math.max(before, matmulRate(threads));
      const achieved = stepFlops(config, run) / ours.stepSeconds;
      print(
        `  multiplies at ${gigaflops(achieved)}, ${((100 * achieved) / rate).toFixed(0)} % of the machine's fp32 rate of ` +
          `${gigaflops(rate)}`,
      );
      const peer = options.peers ? await measurePeft({ ...settings, ...LORA, print }) : null;
      if (!peer) continue;
      report("PEFT float32", run, peer, print);
      const memory = (ours.peakBytes - ours.emptyBytes) / (peer.peakBytes - peer.emptyBytes);
      print(
        `  Preceptor / PEFT: ${(peer.stepSeconds / ours.stepSeconds).toFixed(2)} × the tokens, ` +
          `${memory.toFixed(2)} × the memory`,
      );
    }
    await benchRltStep({ directory, threads, peers: options.peers ?? false }, print);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

function report(name: string, run: TrainCase, figures: TrainFigures, print: (line: string) => void): void {
  const tokens = run.sequences * run.length;
  const { stepSeconds, emptyBytes, loadedBytes, peakBytes } = figures;
  print(
    `  ${name}: ${(tokens / stepSeconds).toFixed(0)} tokens trained/s (${stepSeconds.toFixed(2)} s a step), peak memory ` +
      `${mebibytes(peakBytes - emptyBytes)} above the empty process, ${mebibytes(peakBytes - loadedBytes)} above the loaded model`,
  );
}

const gigaflops = (rate: number): string => `${(rate / 1e9).toFixed(0)} GFLOP/s`;

const FORMULA =
  "operations counted per step: 2·2·(weights of linear maps)·(rows computed) for forward and dX, + 2·2·V·H·(weighted rows) " +
  "for the frozen head's two, + 12·layers·heads·D·(pairs not masked); LoRA's own products are not counted";

/** Rows computed are those we compute: a shared prompt counts once. */
function stepFlops(config: ModelConfig, { sequences, prompt, length }: TrainCase): number {
  const { layers, heads, headDim, vocabSize, hiddenSize } = config;
  const weights =
    layers * Object.values(linearShapes(config)).reduce((sum, { out, in: columns }) => sum + out * columns, 0);
  const rows = prompt + sequences * length;
  const weighted = sequences * length;
  const pairs = prompt ** 2 / 2 + sequences * length * (prompt + length / 2);
  return 4 * weights * rows + 4 * vocabSize * hiddenSize * weighted + 12 * layers * heads * headDim * pairs;
}
