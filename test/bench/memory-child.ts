/**
 * One process that loads a model, a second worker of the same weights and an adapter, and says after each step what memory
 * it has. Run by memory.ts; the settings are its argument, the figures its last line.
 */
import { setTimeout as delay } from "node:timers/promises";
import type { EngineModel, OpenOptions } from "../../src/engine/engine.ts";
import { createOnnxEngine } from "../../src/engine/onnx/engine.ts";
import { openAdapter } from "../../src/model/adapter.ts";
import type { AdapterFiles } from "../../src/model/checkpoint.ts";
import { openCheckpoint } from "../../src/model/open.ts";
import { createGarbageCollector } from "./collect-garbage.ts";
import type { MemoryFigures, MemorySettings, Reading } from "./memory.ts";
import { processBytes } from "./process-memory.ts";
import { randomFrom, randomIds } from "./random.ts";

const PROMPT_TOKENS = 128;
const NEW_TOKENS = 32;
const SCORED_TOKENS = 512;
const IDLE_MS = 5_000;

/** Steady: no change of more than a mebibyte over this time. */
const STEADY_MS = 1_500;
const STEADY_BYTES = 2 ** 20;
/** By then it is what it is; a reading that still moves is taken as it stands. */
const STEADY_TIMEOUT_MS = 20_000;

/** Hundreds of megabytes of dead tensors would hide what a step costs. */
const collectGarbage = createGarbageCollector();

async function steady(): Promise<Reading> {
  const until = performance.now() + STEADY_TIMEOUT_MS;
  let last = read();
  for (;;) {
    await collectGarbage();
    await delay(STEADY_MS);
    const now = read();
    if (Math.abs(now.anon - last.anon) < STEADY_BYTES || performance.now() > until) return now;
    last = now;
  }
}

function read(): Reading {
  const anon = processBytes(process.pid, "RssAnon");
  const file = processBytes(process.pid, "RssFile");
  if (anon === undefined || file === undefined) throw new Error("this benchmark reads /proc: Linux only");
  return { anon, file };
}

const prompt = (length: number): Int32Array => Int32Array.from(randomIds(randomFrom(1), length));

async function sampleOnce(model: EngineModel, adapter: AdapterFiles | null): Promise<void> {
  const params = { temperature: 0.7, topP: 1, topK: 0, maxTokens: NEW_TOKENS };
  const request = { promptIds: prompt(PROMPT_TOKENS), n: 1, params, seed: 1, stopIds: [], adapter };
  let tokens = 0;
  for await (const event of model.sample(request)) if (event.type === "token") tokens++;
  if (tokens !== NEW_TOKENS) throw new Error(`${tokens} tokens instead of ${NEW_TOKENS}`);
}

async function use(model: EngineModel): Promise<void> {
  await sampleOnce(model, null);
  await model.logprobs({ sequences: [{ ids: prompt(SCORED_TOKENS) }], temperature: 0.7 });
}

/** CPU time of the whole process over wall time, while nothing is asked of it. */
async function idleCpu(): Promise<number> {
  const [started, before] = [performance.now(), process.cpuUsage()];
  await delay(IDLE_MS);
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000 / (performance.now() - started);
}

async function measure({ directory, adapter, cacheDir, precision, threads }: MemorySettings): Promise<MemoryFigures> {
  const checkpoint = await openCheckpoint(directory);
  const adapterFiles = await openAdapter(adapter, checkpoint);
  const contextLength = Math.min(2048, checkpoint.config.maxPositions);
  const options: OpenOptions = { precision, contextLength, threads, device: "cpu" };
  const engine = createOnnxEngine({ cacheDir });
  const empty = await steady();

  const first = await engine.open(checkpoint, options);
  const firstOpened = await steady();
  await use(first);
  const firstUsed = await steady();
  const modelBytes = first.memoryBytes();

  const second = await engine.open(checkpoint, options);
  const secondOpened = await steady();
  await use(second);
  const secondUsed = await steady();

  // The base's own path has run; what comes on top is the adapter's.
  await sampleOnce(first, adapterFiles);
  const adapterUsed = await steady();
  const cpu = await idleCpu();
  await second.close();
  await first.close();
  return {
    readings: { empty, firstOpened, firstUsed, secondOpened, secondUsed, adapterUsed },
    weightBytes: first.weights.bytes,
    modelBytes,
    idleCpu: cpu,
  };
}

const settings = JSON.parse(process.argv[2] ?? "") as MemorySettings;
process.stdout.write(`${JSON.stringify(await measure(settings))}\n`);
