import { parentPort } from "node:worker_threads";
import { fail } from "../../errors.ts";
import type { AdapterFiles } from "../../model/checkpoint.ts";
import { createPeer, type HandlerContext, Transferred } from "../../thread/peer.ts";
import type { LogprobsResult } from "../engine.ts";
import { type AdapterStore, createAdapterStore, type LoadedAdapter } from "./adapters.ts";
import { CAPABILITIES } from "./capabilities.ts";
import { checkPrecision } from "./device.ts";
import { createComputeGuard } from "./exit-guard.ts";
import { chunkTokens, PREFIX_BYTES } from "./limits.ts";
import { packedWeights } from "./packed-weights.ts";
import { createPrefixCache } from "./prefix-cache.ts";
import type {
  DistributionsMessage,
  DropMessage,
  LogprobsMessage,
  Opened,
  OpenMessage,
  ReferenceMessage,
  SampleMessage,
  WorkerState,
} from "./protocol.ts";
import { needsEvenRows } from "./row-order.ts";
import { createScheduler, type Scheduler } from "./scheduler.ts";
import { createScorer, type Scorer } from "./scorer.ts";
import { testInvariance } from "./self-test.ts";
import { openSessions, type Sessions } from "./sessions.ts";
import { takeTurns } from "./turns.ts";

/** The thread that owns one base model: its sessions, caches and everything that computes. */

if (!parentPort) throw new Error("worker.ts runs as a worker thread");

interface Model {
  sessions: Sessions;
  adapters: AdapterStore;
  scheduler: Scheduler;
  scorer: Scorer;
}

let model: Model | undefined;
let reported = "";

const peer = createPeer(parentPort, { open, sample, drop, logprobs, distributions, close });

function opened(): Model {
  if (!model) throw fail("engine_failed", "the model is not loaded");
  return model;
}

async function open({ checkpoint, options, cacheDir, exitFlags, member }: OpenMessage): Promise<Opened> {
  const { precision, device, contextLength } = options;
  const { config, parameters } = checkpoint;
  // Packing is for the kernels of this processor.
  checkPrecision(precision, device);
  const guard = createComputeGuard(exitFlags);
  const packed =
    device === "cpu" && !options.transient ? await packedWeights(checkpoint, precision, cacheDir, guard) : null;
  const sessionOptions = { ...options, guard, turn: takeTurns(member) };
  const schemes = new Set([...(packed?.matrices.values() ?? [])].map(({ scheme }) => scheme));
  const evenRows = [...schemes].some((scheme) => scheme && needsEvenRows(scheme, sessionOptions));
  const sessions = openSessions(checkpoint, packed, sessionOptions, evenRows);
  const prefixes = createPrefixCache(config, PREFIX_BYTES);
  const scorer = createScorer({ sessions, prefixes, wake: () => scheduler.wake() });
  const scheduler: Scheduler = createScheduler({
    sessions,
    prefixes,
    scorer,
    chunkTokens: (busy) => chunkTokens(parameters, busy),
    contextLength,
    onTick: reportState,
  });
  model = { sessions, adapters: createAdapterStore(config), scheduler, scorer };
  return {
    weights: packed
      ? { key: packed.key, bytes: packed.bytes }
      : { key: `${checkpoint.weightsHash} ${device}`, bytes: parameters * Float32Array.BYTES_PER_ELEMENT },
    capabilities: {
      ...CAPABILITIES,
      batch_invariant: await testInvariance(scheduler, config.vocabSize, contextLength),
    },
  };
}

function adapterOf(files: AdapterFiles | null): Promise<LoadedAdapter> | null {
  return files && opened().adapters.load(files);
}

async function sample(message: SampleMessage, { emit, signal }: HandlerContext): Promise<void> {
  const { scheduler } = opened();
  const adapter = await adapterOf(message.adapter);
  // The reader's pace does not matter: a request has at most n · maxTokens small events.
  await scheduler.sample(message, adapter, (events) => void emit(events), signal);
}

function drop({ key, index }: DropMessage): void {
  opened().scheduler.drop(key, index);
}

async function logprobs(message: LogprobsMessage, context: HandlerContext): Promise<Transferred> {
  const { scorer } = opened();
  const { key, temperature, topK, entropy, rank, client, priority } = message;
  const adapter = await adapterOf(message.adapter);
  // One sequence that fails ends the request, so the others stop too.
  const failed = new AbortController();
  const signal = AbortSignal.any([context.signal, failed.signal]);
  const scored = message.sequences.map((item, sequence) => {
    const ask = (): Promise<Float32Array | null> =>
      peer.call("reference", { key, sequence } satisfies ReferenceMessage, { signal });
    const reference = item.hasReference ? ask : null;
    return scorer.logprobs(item, { temperature, topK, entropy, rank, adapter, client, priority, signal, reference });
  });
  try {
    const results = await Promise.all(scored);
    return new Transferred(results, results.flatMap(buffersOf));
  } finally {
    failed.abort();
  }
}

function buffersOf(result: LogprobsResult): ArrayBuffer[] {
  return Object.values(result).flatMap((value) => (ArrayBuffer.isView(value) ? [value.buffer as ArrayBuffer] : []));
}

async function distributions(message: DistributionsMessage, { emit, signal }: HandlerContext): Promise<void> {
  const { scorer } = opened();
  const adapter = await adapterOf(message.adapter);
  const { temperature, client, priority } = message;
  for await (const chunk of scorer.distributions(message, { temperature, adapter, client, priority, signal })) {
    if (signal.aborted) return;
    await emit(chunk, [chunk.buffer as ArrayBuffer]);
  }
}

/**
 * Ends this thread from inside, between two computations: a thread that is terminated from outside while ONNX Runtime
 * computes takes the whole process with it (the binding throws where nobody catches).
 */
function close(): void {
  model?.scheduler.stop();
  model?.sessions.dispose();
  process.exit(0);
}

/** Tells the proxy how busy this model is, when that has changed. */
function reportState(): void {
  const { scheduler, adapters } = opened();
  const state: WorkerState = scheduler.state();
  state.bytes += adapters.bytes();
  const now = JSON.stringify(state);
  if (now === reported) return;
  reported = now;
  peer.call("state", state).catch(() => undefined);
}
