/** `sample` at a server: one request for a group; what a failure cuts off goes on elsewhere from the tokens it had. */
import { linked } from "../../abort.ts";
import { fail } from "../../errors.ts";
import type { SampleEvent, SampleRequest } from "../engine.ts";
import { createSampleStream } from "../sample-stream.ts";
import { attempt, type Place } from "./attempt.ts";
import { type Channel, createChannel } from "./channel.ts";
import { garbage, RemoteFailure } from "./failure.ts";
import { contextLengthOf, type Remote } from "./remote.ts";
import { estimateAt } from "./temperature.ts";
import { readAnswer, type WireChoice, type WireToken } from "./wire.ts";

/** Where one sequence stands. */
interface Sequence {
  ids: number[];
  open: boolean;
}

/** Throws `unsupported_by_backend` where the server names no token ids, and the reason of `closed` once that is aborted. */
export async function* remoteSample(
  remote: Remote,
  request: SampleRequest,
  closed: AbortSignal,
): AsyncGenerator<SampleEvent> {
  if (!remote.profile.capabilities.sample) {
    throw fail("unsupported_by_backend", `the server of ${remote.options.name} does not say which tokens it samples`);
  }
  const sequences = Array.from({ length: request.n }, (): Sequence => ({ ids: [], open: true }));
  const drop = (index: number): void => {
    sequences[index]!.open = false;
  };
  const start = (signal: AbortSignal): AsyncIterable<SampleEvent[]> => {
    const channel = createChannel<SampleEvent[]>();
    const ended = linked(signal, closed);
    run(remote, request, sequences, channel, ended.signal)
      .finally(ended.unlink)
      .then(
        () => channel.end(),
        (error: unknown) => channel.end(error),
      );
    return channel;
  };
  yield* createSampleStream(request, { start, drop });
}

async function run(
  remote: Remote,
  request: SampleRequest,
  sequences: readonly Sequence[],
  channel: Channel<SampleEvent[]>,
  signal: AbortSignal,
): Promise<void> {
  const { client = "", priority = "interactive", adapter = null, promptIds } = request;
  let begun = false;
  const begin = (): void => {
    if (!begun) channel.push([{ type: "prompt", cachedTokens: 0 }]);
    begun = true;
  };
  const isOpen = ({ open }: Sequence): boolean => open;
  const sampled = (): number => sequences.reduce((sum, { ids }) => sum + ids.length, 0);
  const asking = {
    client,
    priority,
    adapter,
    kind: "sample" as const,
    prefix: promptIds,
    signal,
    sequences: () => sequences.filter(isOpen).length,
    progress: sampled,
    queued: (place: Omit<Extract<SampleEvent, { type: "queued" }>, "type">) =>
      begun || channel.push([{ type: "queued", ...place }]),
  };
  await attempt(remote, asking, async (place) => {
    const before = sampled();
    const started = remote.now();
    const rest = sequences.filter(isOpen).length;
    await (before === 0
      ? whole(remote, request, sequences, place, channel, begin, signal)
      : resume(remote, request, sequences, place, channel, signal));
    place.replica.succeeded("sample", (remote.now() - started) / Math.max(1, (sampled() - before) / rest));
  });
}

/** All sequences with one request, so that their prompt is computed once. */
async function whole(
  remote: Remote,
  request: SampleRequest,
  sequences: readonly Sequence[],
  place: Place,
  channel: Channel<SampleEvent[]>,
  begin: () => void,
  signal: AbortSignal,
): Promise<void> {
  // vLLM does not draw the same greedy answer several times over.
  const together = remote.profile.manyChoices && request.params.temperature > 0;
  if (request.n > 1 && !together) {
    await each(sequences, (sequence, index) =>
      stream(
        remote,
        request,
        place,
        { prompt: request.promptIds, seed: request.seed + index, max: request.params.maxTokens },
        signal,
        {
          index: () => index,
          sequences: [sequence],
          channel,
          begin,
        },
      ),
    );
    return;
  }
  const body = { prompt: request.promptIds, n: request.n, seed: request.seed, max: request.params.maxTokens };
  await stream(remote, request, place, body, signal, { index: (i) => i, sequences, channel, begin });
}

/** Each open sequence goes on from its own tokens: drawn after them, whatever server drew them. */
async function resume(
  remote: Remote,
  request: SampleRequest,
  sequences: readonly Sequence[],
  place: Place,
  channel: Channel<SampleEvent[]>,
  signal: AbortSignal,
): Promise<void> {
  const open = sequences.filter((sequence) => sequence.open);
  const { where } = place.replica.connection;
  remote.observe({ type: "resumed", model: remote.options.name, where, sequences: open.length });
  await each(sequences, async (sequence, index) => {
    if (!sequence.open) return;
    const prompt = Int32Array.from([...request.promptIds, ...sequence.ids]);
    if (sequence.ids.length >= request.params.maxTokens || prompt.length >= contextLengthOf(remote)) {
      // Only the word that it is over was lost.
      sequence.open = false;
      channel.push([{ type: "finish", index, reason: "length" }]);
      return;
    }
    const body = {
      prompt,
      seed: continuedSeed(request.seed, index, sequence.ids.length),
      max: request.params.maxTokens - sequence.ids.length,
    };
    const begin = (): void => undefined;
    await stream(remote, request, place, body, signal, { index: () => index, sequences: [sequence], channel, begin });
  });
}

/** Settles when none is under way any more, so that the next attempt finds them at rest. */
async function each(
  sequences: readonly Sequence[],
  work: (sequence: Sequence, index: number) => Promise<void>,
): Promise<void> {
  const results = await Promise.allSettled(sequences.map(work));
  const failed = results.find((result) => result.status === "rejected");
  if (failed) throw failed.reason;
}

/** A seed of its own for what follows a cut, so that the draws before it are not repeated. */
function continuedSeed(seed: number, index: number, position: number): number {
  return (
    (Math.imul(seed ^ 0x9e3779b9, 2654435761) ^ Math.imul(index + 1, 40503) ^ Math.imul(position + 1, 2246822519)) >>> 0
  );
}

interface Target {
  /** Of a choice of the answer → of the request. */
  index(choice: number): number;
  /** By choice. */
  sequences: readonly Sequence[];
  channel: Channel<SampleEvent[]>;
  begin(): void;
}

/** A server that has said everything closes its answer; one that does not is left. */
const AFTER_END_MS = 1_000;
/**
 * A server that was told the text which ended a sequence here is about to end it too: its last words keep the connection. One
 * that takes longer computes something that nobody wants.
 */
const AFTER_STOP_MS = 250;

async function stream(
  remote: Remote,
  request: SampleRequest,
  { replica, model }: Place,
  asked: { prompt: Int32Array; n?: number; seed: number; max: number },
  signal: AbortSignal,
  { index, sequences, channel, begin }: Target,
): Promise<void> {
  const { profile } = remote;
  const reporting = reportOf(remote, request);
  // The caller leaves when it has everything; what the server says after that is read all the same.
  const leaving = new AbortController();
  let deadline: NodeJS.Timeout | undefined;
  const cut = (): void => leaving.abort(signal.reason);
  const isStopped = (): boolean => sequences.every(({ open }) => !open);
  const endsItself = knowsItsStops(request);
  const leave = (): void => {
    if (endsItself && isStopped()) deadline ??= setTimeout(cut, AFTER_STOP_MS);
    else cut();
  };
  if (signal.aborted) cut();
  else signal.addEventListener("abort", leave, { once: true });
  const left = new Set(sequences.keys());
  const bounds = { vocabSize: profile.vocabSize, n: asked.n ?? 1 };
  const last: SampleEvent[] = [];
  try {
    const body = sampleBody(remote, request, model, asked, reporting.alternatives);
    for await (const value of replica.connection.events("/completions", body, leaving.signal)) {
      const { choices, usage, fingerprint } = readAnswer(value, profile.idsFrom ?? "token_ids", bounds);
      if (fingerprint !== null) remote.fingerprint(replica, fingerprint);
      begin();
      if (usage) channel.push([{ type: "usage", cachedTokens: usage.cachedTokens }]);
      // It goes on beyond what ended the text for us: it will not say that it is done.
      if (isStopped() && choices.some(({ tokens }) => tokens.length > 0)) return;
      for (const choice of choices) {
        const sequence = sequences[choice.index]!;
        const events = take(choice, request, sequence, index(choice.index), left, reporting);
        // What ends the whole answer waits for its usage, which comes next.
        if (left.size === 0) last.push(...events);
        else if (events.length > 0) channel.push(events);
      }
      // The caller has stopped all the others: nobody waits for the rest of this answer.
      if (left.size > 0 && isStopped() && !endsItself) return;
      if (left.size > 0) continue;
      signal.removeEventListener("abort", leave);
      clearTimeout(deadline);
      deadline = setTimeout(cut, AFTER_END_MS);
      if (usage) channel.push(last.splice(0));
    }
    if (left.size > 0) throw new RemoteFailure("failed", "ended its answer before the text was complete");
  } catch (error) {
    // Everything has come, or the caller has stopped all of it: what fails after that is no loss.
    if (!isStopped()) throw error;
  } finally {
    if (last.length > 0) channel.push(last);
    clearTimeout(deadline);
    signal.removeEventListener("abort", leave);
  }
}

function take(
  { index: choice, tokens, finish }: WireChoice,
  request: SampleRequest,
  sequence: Sequence,
  index: number,
  left: Set<number>,
  { report }: Reporting,
): SampleEvent[] {
  // A stop id has ended it for us; a server that knows no stop ids goes on beside the others.
  if (!left.has(choice)) return [];
  if (sequence.ids.length + tokens.length > request.params.maxTokens) {
    throw garbage("answered more tokens than were asked for");
  }
  // Before anything is kept: what a failure cuts off here was never told to the caller.
  const reports = tokens.map(report);
  const events: SampleEvent[] = [];
  for (const [i, { id }] of tokens.entries()) {
    sequence.ids.push(id);
    events.push({ type: "token", index, id, ...reports[i]! });
    if (!request.stopIds.includes(id)) continue;
    events.push({ type: "finish", index, reason: "stop" });
    left.delete(choice);
    sequence.open = false;
    return events;
  }
  if (finish === null) return events;
  left.delete(choice);
  if (sequence.open) events.push({ type: "finish", index, reason: finish });
  sequence.open = false;
  return events;
}

interface Reporting {
  /** To ask the server for; null: no log-probs. */
  alternatives: number | null;
  report(token: WireToken): Omit<Extract<SampleEvent, { type: "token" }>, "type" | "index" | "id">;
}

/** What the server must report so that log-probs can be told at the temperature that was asked for. */
function reportOf({ profile, options }: Remote, request: SampleRequest): Reporting {
  const { params, topLogprobs = 0, logprobsTemperature = params.temperature || 1, logprobs = true } = request;
  // llama.cpp names its tokens in the log-probs only.
  const needed = profile.idsFrom === "token_ids" ? null : 1;
  if (!logprobs && topLogprobs === 0) return { alternatives: needed, report: () => ({ logprob: Number.NaN }) };
  if (profile.sampledLogprobs === null) {
    throw fail(
      "unsupported_by_backend",
      `it is not known what the log-probs that ${options.name} reports of its tokens are`,
    );
  }
  const wanted = logprobsTemperature / options.tempered;
  const isGreedy = params.temperature === 0;
  const unfiltered = isGreedy || (params.topP === 1 && params.topK === 0);
  const isScaled = profile.sampledLogprobs === "scaled";
  // Greedy servers scale nothing.
  const reported = isScaled && !isGreedy ? params.temperature / options.tempered : 1;
  if (wanted === reported && (!isScaled || unfiltered)) {
    return {
      alternatives: Math.max(topLogprobs, needed ?? 0),
      report: ({ logprob, bound, top }) => ({
        logprob: told(logprob),
        ...(bound > 0 ? { errorBound: bound } : {}),
        ...(topLogprobs > 0 && top ? { top: first(top, topLogprobs) } : {}),
      }),
    };
  }
  if (isScaled) {
    throw fail(
      "unsupported_by_backend",
      "the server reports log-probs of sampled tokens after temperature and filters only",
    );
  }
  return {
    alternatives: profile.sampleAlternatives,
    report({ id, logprob, bound: error, top }) {
      if (!top) throw garbage("answered no alternatives to a token where they were asked for");
      const own = { id, logprob: told(logprob) };
      const { at, bound } = estimateAt(top, own, { vocabSize: profile.vocabSize, temperature: wanted, error });
      return {
        logprob: at(logprob),
        errorBound: bound,
        ...(topLogprobs > 0 ? { top: first({ ids: top.ids, logprobs: top.logprobs.map(at) }, topLogprobs) } : {}),
      };
    },
  };
}

function told(logprob: number): number {
  if (Number.isNaN(logprob)) throw garbage("answered a token without its log-prob");
  return logprob;
}

function first({ ids, logprobs }: NonNullable<WireToken["top"]>, k: number): NonNullable<WireToken["top"]> {
  return { ids: ids.subarray(0, k), logprobs: logprobs.subarray(0, k) };
}

/** OpenAI's limit, and that of many servers. */
const MAX_STOP_TEXTS = 4;

function knowsItsStops({ stopTexts = [] }: SampleRequest): boolean {
  return stopTexts.length > 0 && stopTexts.length <= MAX_STOP_TEXTS;
}

function sampleBody(
  { options, profile }: Remote,
  request: SampleRequest,
  model: string,
  asked: { prompt: Int32Array; n?: number; seed: number; max: number },
  alternatives: number | null,
): object {
  const { params, stopIds, stopTexts = [] } = request;
  const stops = stopTexts.slice(0, MAX_STOP_TEXTS);
  return {
    model,
    prompt: Array.from(asked.prompt),
    // vLLM refuses more than the context holds.
    max_tokens: Math.min(asked.max, Math.max(1, contextLengthOf({ options, profile }) - asked.prompt.length)),
    n: asked.n ?? 1,
    seed: asked.seed,
    temperature: params.temperature / options.tempered,
    // Each at the value that was asked for, also where it changes nothing: servers take what is left out from the
    // model's generation_config.json, or have filters of their own (llama.cpp).
    top_p: params.topP,
    top_k: params.topK,
    ...NO_OTHER_FILTERS,
    // Only where the caller wants to go on beyond the end of a turn: llama.cpp forbids that token then.
    ...(options.eosIds.some((id) => stopIds.includes(id)) ? {} : { ignore_eos: true }),
    ...(stopIds.length > 0 ? { stop_token_ids: stopIds } : {}),
    ...(stops.length > 0 ? { stop: stops, include_stop_str_in_output: true } : {}),
    stream: true,
    stream_options: { include_usage: true },
    ...(profile.idsFrom === "content" ? {} : { return_token_ids: true }),
    ...(alternatives === null ? {} : { logprobs: alternatives, return_tokens_as_token_ids: true }),
  };
}

export const NO_OTHER_FILTERS = { min_p: 0, repetition_penalty: 1, presence_penalty: 0, frequency_penalty: 0 };
