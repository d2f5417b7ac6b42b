/**
 * Measures llama.cpp through node-llama-cpp's addon: `llama-cpp-child.ts {"library", "gguf", "threads"}` prints figures.
 *
 * It calls the addon's own context (batch, decode, sample) and not the public `sequence.evaluate()`: that cannot copy a
 * prompt's cache from one sequence to the next, evaluates the prompt once per sequence and takes a third longer for a
 * group. What is measured here is llama_decode on one batch of all sequences, greedy sampling (the cheapest), flash
 * attention on (the fastest); a C program over the same library gives the same figures.
 */
import { pathToFileURL } from "node:url";
import { PEER_SHAPES } from "./figures.ts";

interface AddonContext {
  initBatch(size: number): void;
  /** Returns where the logits of the tokens at `logitIndexes` will lie. */
  addToBatch(sequence: number, position: number, tokens: Uint32Array, logitIndexes: Uint32Array): Uint32Array;
  decodeBatch(): Promise<void>;
  sampleToken(logits: number, sampler: AddonSampler): Promise<number>;
  copySequenceStateFromOtherSequence(to: number, from: number): Promise<number>;
  disposeSequence(sequence: number): void;
}

interface AddonSampler {
  applyConfig(config: { temperature: number }): void;
}

interface Model {
  _model: object;
  createContext(options: object): Promise<{ _ctx: AddonContext; dispose(): Promise<void> }>;
}

interface Llama {
  loadModel(options: object): Promise<Model>;
  _bindings: { AddonSampler: new (model: object) => AddonSampler };
}

interface Library {
  getLlama(options: object): Promise<Llama>;
}

interface Request {
  library: string;
  gguf: string;
  threads: number;
}

const REPETITIONS = 3;
const { prompt: PROMPT, newTokens: NEW_TOKENS, group: GROUP, prefill: PREFILL } = PEER_SHAPES;
/** Ids below it are in every vocabulary. */
const IDS = 256;

const { library, gguf, threads } = JSON.parse(process.argv[2] as string) as Request;
const { getLlama } = (await import(pathToFileURL(library).href)) as Library;
const llama = await getLlama({
  gpu: false,
  build: "never",
  skipDownload: true,
  logLevel: "error",
  maxThreads: threads,
});
const model = await llama.loadModel({ modelPath: gguf, gpuLayers: 0 });
const one = await decoding(1);
const group = await decoding(GROUP);
const figures = {
  oneStream: one.rate,
  group: group.rate,
  groupWallSeconds: group.wallSeconds,
  prefill: await prefill(),
};
// On a line of its own: the library's log may have left one unfinished.
process.stdout.write(`\n${JSON.stringify(figures)}\n`, () => process.exit(0));

/** The prompt is evaluated once and its cache copied; then a batch per step with one token of each sequence. */
async function decoding(sequences: number): Promise<{ rate: number; wallSeconds: number }> {
  const { context, dispose } = await createContext(sequences, PROMPT + NEW_TOKENS);
  const samplers = Array.from({ length: sequences }, createSampler);
  let rate = 0;
  let wallSeconds = Number.POSITIVE_INFINITY;
  for (let i = 0; i < REPETITIONS; i++) {
    for (let s = 0; s < sequences; s++) context.disposeSequence(s);
    const begun = performance.now();
    await evaluate(context, PROMPT);
    for (let s = 1; s < sequences; s++) await context.copySequenceStateFromOtherSequence(s, 0);
    const started = performance.now();
    // Different first tokens, so that the greedy continuations differ as well.
    let tokens = samplers.map((_, s) => idAt(s + 1));
    for (let step = 0; step < NEW_TOKENS; step++) {
      context.initBatch(sequences);
      const logits = tokens.map((token, s) => {
        return context.addToBatch(s, PROMPT + step, Uint32Array.of(token), Uint32Array.of(0))[0] as number;
      });
      await context.decodeBatch();
      tokens = await Promise.all(samplers.map((sampler, s) => context.sampleToken(logits[s] as number, sampler)));
    }
    rate = Math.max(rate, (sequences * NEW_TOKENS) / seconds(started));
    wallSeconds = Math.min(wallSeconds, seconds(begun));
  }
  await dispose();
  return { rate, wallSeconds };
}

/** In one batch, with the logits of the last token only: llama.cpp has no cheaper way, and returns no log-probs. */
async function prefill(): Promise<number> {
  const { context, dispose } = await createContext(1, PREFILL);
  let rate = 0;
  for (let i = 0; i < REPETITIONS; i++) {
    context.disposeSequence(0);
    const started = performance.now();
    await evaluate(context, PREFILL);
    rate = Math.max(rate, PREFILL / seconds(started));
  }
  await dispose();
  return rate;
}

async function evaluate(context: AddonContext, length: number): Promise<void> {
  context.initBatch(length);
  context.addToBatch(
    0,
    0,
    Uint32Array.from({ length }, (_, i) => idAt(i)),
    Uint32Array.of(length - 1),
  );
  await context.decodeBatch();
}

async function createContext(sequences: number, contextSize: number) {
  const options = { sequences, contextSize, batchSize: PREFILL, threads, flashAttention: true };
  const context = await model.createContext(options);
  return { context: context._ctx, dispose: () => context.dispose() };
}

function createSampler(): AddonSampler {
  const sampler = new llama._bindings.AddonSampler(model._model);
  sampler.applyConfig({ temperature: 0 });
  return sampler;
}

function idAt(i: number): number {
  return (i * 31 + 3) % IDS;
}

function seconds(started: number): number {
  return (performance.now() - started) / 1000;
}
