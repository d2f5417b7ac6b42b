import path from "node:path";
import { onTestFinished } from "vitest";
import type {
  EngineModel,
  FinishReason,
  LogprobsRequest,
  LogprobsResult,
  RemoteModel,
  RemoteOptions,
  SampleEvent,
  SampleRequest,
  TopLogprobs,
} from "../../../src/engine/engine.ts";
import { createOpenAiEngine, type OpenAiEngineDeps } from "../../../src/engine/openai/engine.ts";
import type { RemoteEvent } from "../../../src/engine/openai/remote.ts";
import type { AdapterFiles } from "../../../src/model/checkpoint.ts";
import { type FakeOptions, type FakeVllm, startFake } from "./fake-vllm.ts";

/** Ids of no meaning that lie in every toy's vocabulary. */
export const PROMPT = Int32Array.of(11, 42, 7, 199, 250, 3, 77, 120);
export const PROBE = Int32Array.of(5, 60, 33, 91, 8);

/** A fake server that ends with the test. */
export async function fake(options: FakeOptions = {}): Promise<FakeVllm> {
  const server = await startFake(options);
  onTestFinished(() => server.close());
  return server;
}

export interface Connected {
  model: RemoteModel;
  events: RemoteEvent[];
  /** Events of one type so far. */
  of<T extends RemoteEvent["type"]>(type: T): Extract<RemoteEvent, { type: T }>[];
}

/** A model over these servers; it is closed when the test ends. What probing has counted is forgotten. */
export async function connect(
  servers: readonly FakeVllm[],
  options: Partial<RemoteOptions> = {},
  deps: Partial<OpenAiEngineDeps> = {},
): Promise<Connected> {
  const events: RemoteEvent[] = [];
  const engine = createOpenAiEngine({
    allowedHosts: ["127.0.0.1"],
    observe: (event) => void events.push(event),
    now: () => performance.now(),
    hashAdapter: async (directory) => adapter(path.basename(directory)).hash,
    ...deps,
  });
  const [first] = servers as [FakeVllm];
  const model = await engine.connect({
    baseUrls: servers.map(({ url }) => url),
    name: first.settings.name,
    key: undefined,
    tempered: 1,
    vocabSize: first.settings.toy.vocabSize,
    eosIds: [first.settings.eosId],
    contextLength: null,
    probeIds: PROBE,
    ...options,
  });
  onTestFinished(() => model.close());
  for (const { seen } of servers) Object.assign(seen, { requests: [], sequences: 0, tokens: 0, disconnects: 0 });
  return {
    model,
    events,
    of: (type) => events.filter((event): event is Extract<RemoteEvent, { type: typeof type }> => event.type === type),
  };
}

export type Wanted = Partial<Omit<SampleRequest, "params">> & { params?: Partial<SampleRequest["params"]> };

/** Ids after which nothing stops by itself. */
export function wanted(request: Wanted = {}): SampleRequest {
  const params = { temperature: 1, topP: 1, topK: 0, maxTokens: 12, ...request.params };
  return { promptIds: PROMPT, n: 1, seed: 1, stopIds: [], ...request, params };
}

export interface Sampled {
  ids: number[];
  logprobs: number[];
  tops: TopLogprobs[];
  bounds: (number | undefined)[];
  reason: FinishReason | undefined;
}

/** Runs a request to its end; one entry per sequence. */
export async function sampleAll(
  model: EngineModel,
  request: Wanted = {},
  onEvent: (event: SampleEvent) => void = () => undefined,
): Promise<Sampled[]> {
  const full = wanted(request);
  const out = Array.from({ length: full.n }, (): Sampled => {
    return { ids: [], logprobs: [], tops: [], bounds: [], reason: undefined };
  });
  for await (const event of model.sample(full)) {
    onEvent(event);
    if (event.type === "finish") {
      if (out[event.index]!.reason !== undefined) throw new Error(`sequence ${event.index} finished twice`);
      out[event.index]!.reason = event.reason;
    }
    if (event.type !== "token") continue;
    const sequence = out[event.index]!;
    if (sequence.reason !== undefined) throw new Error(`sequence ${event.index} went on after its end`);
    sequence.ids.push(event.id);
    sequence.logprobs.push(event.logprob);
    sequence.bounds.push(event.errorBound);
    if (event.top) sequence.tops.push(event.top);
  }
  return out;
}

export async function score(
  model: EngineModel,
  ids: Int32Array,
  request: Partial<LogprobsRequest> & Partial<LogprobsRequest["sequences"][number]> = {},
): Promise<LogprobsResult> {
  const { from, to, at, atWidth, reference, ...rest } = request;
  const sequence = {
    ids,
    ...(from === undefined ? {} : { from }),
    ...(to === undefined ? {} : { to }),
    ...(at === undefined ? {} : { at }),
    ...(atWidth === undefined ? {} : { atWidth }),
    ...(reference === undefined ? {} : { reference }),
  };
  const [result] = await model.logprobs({ temperature: 1, ...rest, sequences: [sequence] });
  return result!;
}

/** An adapter of that many bytes' content, as the engine sees it: only its hash and its directory matter here. */
export function adapter(content: string): AdapterFiles {
  const hash = Buffer.from(content).toString("hex").padEnd(64, "0");
  return { directory: `/adapters/${content}`, hash: `sha256:${hash}`, targets: [] };
}

/** Largest absolute difference; arrays of different length are infinitely apart. */
export function farthest(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY;
  let most = 0;
  for (let i = 0; i < actual.length; i++) most = Math.max(most, Math.abs(actual[i]! - expected[i]!));
  return Number.isNaN(most) ? Number.POSITIVE_INFINITY : most;
}

/** Waits until `check` holds; fails after ten seconds. */
export async function eventually(check: () => boolean): Promise<void> {
  for (let i = 0; i < 2000 && !check(); i++) await new Promise((resolve) => setTimeout(resolve, 5));
  if (!check()) throw new Error("did not become true within ten seconds");
}
