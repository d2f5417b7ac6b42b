import { mkdtemp, rm } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import path from "node:path";
import type { EngineModel, Precision } from "../../src/engine/engine.ts";
import { createOnnxEngine } from "../../src/engine/onnx/engine.ts";
import type { Checkpoint } from "../../src/model/checkpoint.ts";
import { openCheckpoint } from "../../src/model/open.ts";
import { SMOLLM2_135M, writeRandomCheckpoint } from "../engine/random-checkpoint.ts";
import { matmulRate } from "./matmul-rate.ts";
import { CANDIDATES, ourFigures, STREAMS, sampleCandidates, scoreCandidates, spearman, streamsRate } from "./ours.ts";
import { PEER_SHAPES, type PeerFigures, printFigures } from "./peers/figures.ts";
import { peerGguf } from "./peers/gguf-file.ts";
import { measureLlamaCpp } from "./peers/llama-cpp.ts";
import type { MatrixType } from "./peers/quantise-blocks.ts";
import { readBandwidth } from "./peers/read-bandwidth.ts";
import { measureTransformers } from "./peers/transformers.ts";

/**
 * Tokens per second of the embedded engine, beside its peers on the same weights and beside what the machine can do (matrix
 * multiplication, memory bandwidth), all in one run: compare ratios, not numbers of different machines.
 */

export interface BenchOptions {
  /** Checkpoint directory; a random one of SmolLM2-135M's shape when absent. */
  directory?: string;
  precisions: readonly Precision[];
  threads?: number;
  /** Measure llama.cpp and Transformers too. */
  peers?: boolean;
}

/** What llama.cpp calls weights of as many bits. */
const PEER_TYPE: Readonly<Record<Precision, MatrixType>> = {
  fp32: "F32",
  q8: "Q8_0",
  q8_0: "Q8_0",
  q4: "Q4_0",
  q4_0: "Q4_0",
};
/** Questions whose candidates are ranked. */
const QUESTIONS = [1, 2, 3, 4];

interface Machine {
  /** FLOP/s */
  matmul: number;
  /** Bytes/s */
  bandwidth: number;
}

export async function benchEngine(options: BenchOptions, print: (line: string) => void): Promise<void> {
  const threads = options.threads ?? availableParallelism();
  const scratch = await mkdtemp(path.join(tmpdir(), "preceptor-bench-"));
  try {
    const directory = options.directory ?? path.join(scratch, "smollm2-135m-random");
    if (!options.directory) await writeRandomCheckpoint(directory, SMOLLM2_135M);
    const checkpoint = await openCheckpoint(directory);
    const machine = { matmul: matmulRate(threads), bandwidth: await readBandwidth(threads) };
    print(
      `machine: ${threads} threads, fp32 matrix multiplication ${(machine.matmul / 1e9).toFixed(0)} GFLOP/s, ` +
        `reading ${(machine.bandwidth / 1e9).toFixed(0)} GB/s`,
    );
    print(`model: ${(checkpoint.parameters / 1e6).toFixed(0)} M parameters`);
    const ranking: Ranking = { candidates: [], exact: null };
    for (const precision of options.precisions) {
      print("");
      const ours = await benchPrecision(checkpoint, precision, { threads, scratch, machine, ranking }, print);
      if (!options.peers) continue;
      const gguf = await peerGguf(directory, PEER_TYPE[precision], scratch).catch((error: Error) => error);
      if (gguf instanceof Error) print(`llama.cpp: not measured (${gguf.message})`);
      else printRatios(ours, await measureLlamaCpp({ gguf, threads, print }), print);
      if (precision === "fp32") {
        printRatios(ours, await measureTransformers({ directory, dtype: "float32", threads, print }), print);
      }
    }
    print("");
    print(`peak memory: ${(process.resourceUsage().maxRSS / 1024).toFixed(0)} MiB (with what measuring takes)`);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function benchPrecision(
  checkpoint: Checkpoint,
  precision: Precision,
  run: { threads: number; scratch: string; machine: Machine; ranking: Ranking },
  print: (line: string) => void,
): Promise<PeerFigures> {
  const engine = createOnnxEngine({ cacheDir: run.scratch });
  const contextLength = Math.min(2048, checkpoint.config.maxPositions);
  const started = performance.now();
  const model = await engine.open(checkpoint, { precision, contextLength, threads: run.threads, device: "cpu" });
  try {
    const { weights, capabilities } = model;
    const took = ((performance.now() - started) / 1000).toFixed(1);
    print(
      `${precision}: ${(weights.bytes / 2 ** 20).toFixed(0)} MiB of weights, packed and loaded in ${took} s, ` +
        `batch_invariant ${capabilities.batch_invariant}`,
    );
    const ours = await ourFigures(model, `Preceptor ${precision}`);
    printFigures(ours, { threads: run.threads, print });
    const flops = flopsPerToken(checkpoint);
    const percent = (share: number): string => `${(100 * share).toFixed(0)} %`;
    print(
      `  one stream reads ${percent((ours.oneStream * weights.bytes) / run.machine.bandwidth)} of what memory gives; ` +
        `scoring multiplies at ${percent((ours.prefill * flops) / run.machine.matmul)} of the fp32 rate`,
    );
    for (const streams of STREAMS)
      print(`  ${streams} streams: ${(await streamsRate(model, streams)).toFixed(0)} tokens/s`);
    await rank(model, precision, run.ranking, print);
    return ours;
  } finally {
    await model.close();
  }
}

interface Ranking {
  /** By question; sampled by the first model measured. */
  candidates: Int32Array[][];
  /** Means in fp32. */
  exact: number[][] | null;
}

/** Scores candidates, and compares their order with that of fp32. */
async function rank(
  model: EngineModel,
  precision: Precision,
  ranking: Ranking,
  print: (line: string) => void,
): Promise<void> {
  if (ranking.candidates.length === 0) {
    for (const question of QUESTIONS) ranking.candidates.push(await sampleCandidates(model, question));
  }
  const scored = [];
  for (const candidates of ranking.candidates) scored.push(await scoreCandidates(model, candidates));
  const means = scored.map((score) => score.means);
  const rate = Math.max(...scored.map((score) => score.rate));
  const { count, prompt } = CANDIDATES;
  print(`  ${count} candidates of one question (${prompt} tokens, read once): ${rate.toFixed(0)} tokens/s`);
  if (precision === "fp32") ranking.exact = means;
  else if (ranking.exact) {
    const least = Math.min(...means.map((values, i) => spearman(values, ranking.exact![i]!)));
    print(`  order of the candidates against fp32: Spearman ${least.toFixed(3)} or more`);
  }
}

function printRatios(ours: PeerFigures, peer: PeerFigures | null, print: (line: string) => void): void {
  if (!peer) return;
  const ratio = (a: number, b: number): string => `${(a / b).toFixed(2)} ×`;
  const wall =
    ours.groupWallSeconds && peer.groupWallSeconds
      ? `, with the prompt ${ratio(peer.groupWallSeconds, ours.groupWallSeconds)}`
      : "";
  print(
    `  ${ours.name} / ${peer.name}: one stream ${ratio(ours.oneStream, peer.oneStream)}, ` +
      `group of ${PEER_SHAPES.group} ${ratio(ours.group, peer.group)}${wall}, given text ${ratio(ours.prefill, peer.prefill)}`,
  );
}

/** Multiplications and additions of the weights; attention over short contexts adds a few per cent. */
function flopsPerToken({ parameters, config }: Checkpoint): number {
  const table = config.tiedHead ? 0 : config.vocabSize * config.hiddenSize;
  return 2 * (parameters - table);
}
