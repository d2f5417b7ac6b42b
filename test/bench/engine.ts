import { mkdtemp, rm } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import path from "node:path";
import type { EngineModel, Precision } from "../../src/engine/engine.ts";
import { createOnnxEngine } from "../../src/engine/onnx/engine.ts";
import { CHUNK_TOKENS } from "../../src/engine/onnx/limits.ts";
import { createSession, tensor } from "../../src/engine/onnx/runtime.ts";
import { createGraph } from "../../src/graph/builder.ts";
import { matmulTransposed } from "../../src/graph/ops/math.ts";
import { encodeModel } from "../../src/graph/proto/onnx.ts";
import type { Checkpoint } from "../../src/model/checkpoint.ts";
import { openCheckpoint } from "../../src/model/open.ts";
import { SMOLLM2_135M, writeRandomCheckpoint } from "../engine/random-checkpoint.ts";

/**
 * Tokens per second of the embedded engine. Every figure stands beside the machine's own fp32 matrix-multiplication
 * rate, measured in the same run, so that a slow or noisy machine does not matter.
 */

export interface BenchOptions {
  /** Checkpoint directory; a random one of SmolLM2-135M's shape when absent. */
  directory?: string;
  precision: Precision;
  threads?: number;
}

const PROMPT_TOKENS = 128;
const NEW_TOKENS = 32;
const SCORED_TOKENS = 512;
const STREAMS = [1, 4, 16];
const REPETITIONS = 2;

export async function benchEngine(options: BenchOptions, print: (line: string) => void): Promise<void> {
  const threads = options.threads ?? availableParallelism();
  const scratch = await mkdtemp(path.join(tmpdir(), "preceptor-bench-"));
  try {
    const directory = options.directory ?? path.join(scratch, "smollm2-135m-random");
    if (!options.directory) await writeRandomCheckpoint(directory, SMOLLM2_135M);
    const checkpoint = await openCheckpoint(directory);
    const peak = matmulRate(threads);
    print(`machine: ${threads} threads, fp32 matrix multiplication ${(peak / 1e9).toFixed(0)} GFLOP/s`);
    print(`model: ${(checkpoint.parameters / 1e6).toFixed(0)} M parameters, ${options.precision}`);
    const engine = createOnnxEngine({ cacheDir: scratch });
    const started = performance.now();
    const contextLength = Math.min(2048, checkpoint.config.maxPositions);
    const model = await engine.open(checkpoint, {
      precision: options.precision,
      contextLength,
      threads,
      device: "cpu",
    });
    print(`loaded in ${seconds(started).toFixed(1)} s, batch_invariant ${model.capabilities.batch_invariant}`);
    const flops = flopsPerToken(checkpoint);
    const rate = (tokensPerSecond: number): string =>
      `${tokensPerSecond.toFixed(1)} tokens/s, ${((100 * tokensPerSecond * flops) / peak).toFixed(1)} % of the matrix-multiplication rate`;
    for (const streams of STREAMS) {
      print(`sample, ${String(streams).padStart(2)} streams: ${rate(await best(() => sampleRate(model, streams)))}`);
    }
    print(`logprobs, ${SCORED_TOKENS} tokens: ${rate(await best(() => scoreRate(model)))}`);
    print(`peak memory: ${(process.resourceUsage().maxRSS / 1024).toFixed(0)} MiB`);
    await model.close();
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** FLOP/s of an fp32 product of the size that scoring uses. */
function matmulRate(threads: number): number {
  const [m, k, n] = [512, 1024, 4096];
  const g = createGraph("rate");
  const x = g.input("x", "float", ["M", k]);
  const data = Float32Array.from({ length: k * n }, (_, i) => Math.sin(i));
  g.output(matmulTransposed(g, x, g.constant("float", [n, k], new Uint8Array(data.buffer)), 1, "y"));
  const session = createSession(encodeModel(g.build()), { threads, device: "cpu" });
  const feeds = { x: tensor("float32", [m, k], data) };
  let fastest = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 20; i++) {
    const started = performance.now();
    session.run(feeds, ["y"]);
    fastest = Math.min(fastest, seconds(started));
  }
  session.dispose();
  return (2 * m * k * n) / fastest;
}

/** Multiplications and additions of the weights; attention over short contexts adds a few per cent. */
function flopsPerToken({ parameters, config }: Checkpoint): number {
  const table = config.tiedHead ? 0 : config.vocabSize * config.hiddenSize;
  return 2 * (parameters - table);
}

function promptOf(model: EngineModel, length: number, which: number): Int32Array {
  return Int32Array.from({ length }, (_, i) => (i * 31 + which * 7919 + 3) % model.vocabSize);
}

/** Decoded tokens per second while all streams run: from the first token of the last one to the first that ends. */
async function sampleRate(model: EngineModel, streams: number): Promise<number> {
  let firsts = 0;
  let started = 0;
  let ended = 0;
  let tokens = 0;
  // Prompts are computed one after the other, a chunk between two tokens of those already running.
  const maxTokens = NEW_TOKENS + streams * Math.ceil(PROMPT_TOKENS / CHUNK_TOKENS);
  const run = async (which: number): Promise<void> => {
    const params = { temperature: 0.7, topP: 1, topK: 0, maxTokens };
    const promptIds = promptOf(model, PROMPT_TOKENS, which);
    let first = true;
    for await (const event of model.sample({ promptIds, n: 1, params, seed: which, stopIds: [] })) {
      if (event.type === "finish") ended ||= performance.now();
      else if (started > 0 && ended === 0) tokens++;
      if (first && ++firsts === streams) started = performance.now();
      first = false;
    }
  };
  await Promise.all(Array.from({ length: streams }, (_, which) => run(which)));
  return (tokens * 1000) / (ended - started);
}

async function scoreRate(model: EngineModel): Promise<number> {
  const ids = promptOf(model, SCORED_TOKENS, 0);
  const started = performance.now();
  await model.logprobs({ sequences: [{ ids }], temperature: 0.7 });
  return SCORED_TOKENS / seconds(started);
}

async function best(measure: () => Promise<number>): Promise<number> {
  let fastest = 0;
  for (let i = 0; i < REPETITIONS; i++) fastest = Math.max(fastest, await measure());
  return fastest;
}

const seconds = (started: number): number => (performance.now() - started) / 1000;
