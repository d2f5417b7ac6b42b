import { fail, type PreceptorError } from "../../errors.ts";
import type { Peer } from "../../thread/peer.ts";
import type {
  DistributionsRequest,
  EngineModel,
  LogprobsRequest,
  LogprobsResult,
  OpenOptions,
  RequestOptions,
  SampleEvent,
  SampleRequest,
} from "../engine.ts";
import { asEngineError } from "../engine-error.ts";
import { createSampleStream } from "../sample-stream.ts";
import { type Bounds, checkDistributions, checkLogprobs, checkSample, range } from "../validate.ts";
import type {
  Batch,
  DistributionsMessage,
  DropMessage,
  LogprobsMessage,
  Opened,
  SampleMessage,
  WorkerState,
} from "./protocol.ts";

/** What the proxy keeps about its worker. */
export interface ModelState extends WorkerState {
  /** Reference distributions that the worker pulls while it scores, by request and sequence. */
  references: Map<number, (AsyncIterator<Float32Array> | undefined)[]>;
}

/** Keys are unique per process; several models may share a log. */
let nextKey = 1;

/** The caller's side of a loaded model: checks requests, passes them on, and runs the callbacks. */
export function createModel(deps: {
  peer: Peer;
  opened: Opened;
  state: ModelState;
  options: OpenOptions;
  vocabSize: number;
  close: () => Promise<void>;
}): EngineModel {
  const { peer, opened, state, options, vocabSize } = deps;
  const bounds: Bounds = { vocabSize, contextLength: options.contextLength };

  async function* sample(request: SampleRequest): AsyncGenerator<SampleEvent> {
    checkSample(request, bounds);
    const key = nextKey++;
    const message = sampleMessage(key, request);
    const drop = (index: number): void => {
      peer.call("drop", { key, index } satisfies DropMessage).catch(() => undefined);
    };
    const start = (signal: AbortSignal): AsyncIterable<Batch> => peer.stream<Batch>("sample", message, { signal });
    yield* createSampleStream(request, { start, drop });
  }

  async function logprobs(request: LogprobsRequest): Promise<LogprobsResult[]> {
    checkLogprobs(request, bounds);
    if (request.signal?.aborted) throw cancelled();
    const key = nextKey++;
    const iterators = request.sequences.map(({ reference }) => reference?.[Symbol.asyncIterator]());
    state.references.set(key, iterators);
    try {
      return await peer.call("logprobs", logprobsMessage(key, request), { signal: request.signal });
    } catch (error) {
      throw asEngineError(error);
    } finally {
      state.references.delete(key);
      // Whoever produces the reference must not wait for a reader that has left.
      for (const iterator of iterators) void iterator?.return?.()?.catch(() => undefined);
    }
  }

  async function* distributions(request: DistributionsRequest): AsyncGenerator<Float32Array> {
    checkDistributions(request, bounds);
    if (request.signal?.aborted) throw cancelled();
    const { ids, from, to, temperature } = request;
    const message: DistributionsMessage = { ids, from, to, temperature, ...asked(request) };
    try {
      yield* peer.stream<Float32Array>("distributions", message, { signal: request.signal });
    } catch (error) {
      throw asEngineError(error);
    }
    if (request.signal?.aborted) throw cancelled();
  }

  return {
    capabilities: opened.capabilities,
    precision: options.precision,
    vocabSize,
    contextLength: options.contextLength,
    weights: opened.weights,
    memoryBytes: () => opened.weights.bytes + state.bytes,
    sample,
    logprobs,
    distributions,
    load() {
      const { bytes: _, references: __, ...load } = state;
      return load;
    },
    close: deps.close,
  };
}

/** Requests that do not say who asks count as one client's. */
const NOBODY = "";

function asked({ client, priority, adapter }: RequestOptions): Pick<SampleMessage, "client" | "priority" | "adapter"> {
  return { client: client ?? NOBODY, priority: priority ?? "interactive", adapter: adapter ?? null };
}

function sampleMessage(key: number, request: SampleRequest): SampleMessage {
  const { promptIds, n, params, seed, stopIds, topLogprobs, logprobsTemperature } = request;
  return {
    key,
    promptIds,
    n,
    params,
    seed,
    stopIds,
    topLogprobs: topLogprobs ?? 0,
    logprobsTemperature: logprobsTemperature ?? (params.temperature || 1),
    ...asked(request),
  };
}

function logprobsMessage(key: number, request: LogprobsRequest): LogprobsMessage {
  const { temperature, topK, entropy, rank } = request;
  return {
    key,
    temperature,
    topK: topK ?? 0,
    entropy: entropy ?? false,
    rank: rank ?? false,
    ...asked(request),
    sequences: request.sequences.map((sequence) => ({
      ids: sequence.ids,
      ...range(sequence),
      ...(sequence.at ? { at: sequence.at } : {}),
      atWidth: sequence.at ? (sequence.atWidth ?? 0) : 0,
      hasReference: sequence.reference !== undefined,
    })),
  };
}

const cancelled = (): PreceptorError => fail("cancelled", "the caller cancelled this request");
