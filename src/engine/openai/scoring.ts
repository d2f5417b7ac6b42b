/** `logprobs` and `distributions` at a server, from `prompt_logprobs`. */

import { allSettledOrThrow } from "../../concurrency.ts";
import { fail } from "../../errors.ts";
import {
  DISTRIBUTION_ROWS,
  type DistributionsRequest,
  type LogprobsRequest,
  type LogprobsResult,
  type LogprobsSequence,
} from "../engine.ts";
import { attempt } from "./attempt.ts";
import { garbage } from "./failure.ts";
import { MAX_WHOLE_ENTRIES } from "./limits.ts";
import type { Remote } from "./remote.ts";
import { estimateAt } from "./temperature.ts";
import { resultOfRows } from "./whole-rows.ts";
import { readAnswer, readPromptLogprobs, type WirePosition } from "./wire.ts";

/** Throws `unsupported_by_backend` for what the server cannot report, `context_length_exceeded`, and what `attempt` throws. */
export async function remoteLogprobs(remote: Remote, request: LogprobsRequest): Promise<LogprobsResult[]> {
  if (!remote.profile.capabilities.logprobs) throw cannot(remote, "report log-probs of given texts");
  return allSettledOrThrow(request.sequences.map((sequence) => scoreSequence(remote, request, sequence)));
}

async function scoreSequence(
  remote: Remote,
  request: LogprobsRequest,
  sequence: LogprobsSequence,
): Promise<LogprobsResult> {
  const { profile, options } = remote;
  const { ids, from = 1, to = ids.length } = sequence;
  const span = { ids, from, to };
  if (to <= from) return { from, to, cachedTokens: 0, logprobs: new Float32Array() };
  checkRoom(remote, to);
  const temperature = request.temperature / options.tempered;
  const isExact = temperature === 1 || profile.scalesPrompts;
  const topK = request.topK ?? 0;
  // What a position's own log-prob does not tell, its whole row does.
  const more = !isExact || request.entropy || topK > profile.alternatives;
  if (sequence.at || sequence.reference || (more && profile.wholeRows)) {
    if (!profile.wholeRows) throw cannot(remote, "report log-probs at chosen ids or whole distributions");
    return resultOfRows(
      request,
      sequence,
      { ...span, vocabSize: profile.vocabSize },
      rowsOf(remote, { ...request, ...span }),
    );
  }
  if (!isExact && (request.exact || profile.alternatives === 0)) {
    throw cannot(
      remote,
      `report log-probs at temperature ${request.temperature} exactly, only at ${options.tempered}; serve a tempered copy beside ` +
        `it (preceptor models temper) and register that with tempered: ${request.temperature}`,
    );
  }
  if (topK > profile.alternatives)
    throw cannot(remote, `report ${topK} alternatives per token, at most ${profile.alternatives}`);
  const { positions, cachedTokens } = await scorePrompt(remote, request, span, {
    alternatives: isExact ? topK : Math.max(topK, profile.alternatives),
    scale: isExact ? temperature : 1,
  });
  const scaled = isExact
    ? positions.map(asReported)
    : positions.map((position, row) => estimate(position, ids[from + row]!, profile.vocabSize, temperature));
  return {
    from,
    to,
    cachedTokens,
    logprobs: Float32Array.from(scaled, ({ logprob }) => logprob),
    ...(request.rank && positions.every(({ rank }) => rank !== null)
      ? { rank: Int32Array.from(positions, ({ rank }) => rank!) }
      : {}),
    ...(topK > 0 ? topOf(scaled, topK) : {}),
    ...(isExact ? {} : { errorBound: Float32Array.from(scaled, ({ bound }) => bound) }),
  };
}

type Scaled = Pick<WirePosition, "logprob" | "ids" | "logprobs"> & { bound: number };

const asReported = (position: WirePosition): Scaled => ({ ...position, bound: 0 });

function estimate(
  { logprob, ids, logprobs }: WirePosition,
  own: number,
  vocabSize: number,
  temperature: number,
): Scaled {
  const { at, bound } = estimateAt({ ids, logprobs }, { id: own, logprob }, { vocabSize, temperature });
  return { logprob: at(logprob), ids, logprobs: logprobs.map(at), bound };
}

/** (N, k) each */
function topOf(positions: readonly Scaled[], k: number): Pick<LogprobsResult, "topIds" | "topLogprobs"> {
  if (positions.some(({ ids }) => ids.length < k)) throw garbage(`answered fewer than ${k} alternatives to a token`);
  return {
    topIds: Int32Array.from(positions.flatMap(({ ids }) => Array.from(ids.subarray(0, k)))),
    topLogprobs: Float32Array.from(positions.flatMap(({ logprobs }) => Array.from(logprobs.subarray(0, k)))),
  };
}

interface Span {
  ids: Int32Array;
  from: number;
  to: number;
}

/** The log-probs that a server reports for a prompt's tokens from…to−1. `scale`: the temperature it is asked to apply. */
async function scorePrompt(
  remote: Remote,
  {
    adapter = null,
    client = "",
    priority = "interactive",
    signal,
  }: Pick<LogprobsRequest, "adapter" | "client" | "priority" | "signal">,
  { ids, from, to }: Span,
  { alternatives, scale }: { alternatives: number; scale: number },
): Promise<{ positions: WirePosition[]; cachedTokens: number }> {
  const asking = { client, priority, adapter, kind: "score" as const, prefix: ids, signal, sequences: () => 1 };
  // Nothing behind the span is of interest.
  const text = ids.subarray(0, to);
  return attempt(remote, asking, async ({ replica, model }) => {
    const { profile } = remote;
    const started = remote.now();
    const value = await replica.connection.post(
      "/completions",
      scoreBody(remote, model, { ids: text, from, alternatives, scale }),
      { signal },
    );
    const positions = readPromptLogprobs(value, { ids: text, from, to, vocabSize: profile.vocabSize });
    const bounds = { vocabSize: profile.vocabSize, n: 1 };
    const { usage, fingerprint } = readAnswer(value, profile.idsFrom ?? "token_ids", bounds);
    if (fingerprint !== null) remote.fingerprint(replica, fingerprint);
    replica.succeeded("score", remote.now() - started);
    return { positions, cachedTokens: usage?.cachedTokens ?? 0 };
  });
}

function scoreBody(
  { profile }: Pick<Remote, "profile">,
  model: string,
  { ids, from, alternatives, scale }: { ids: Int32Array; from: number; alternatives: number; scale: number },
): object {
  return {
    model,
    prompt: Array.from(ids),
    max_tokens: profile.scoresOnly ? 0 : 1,
    temperature: 0,
    prompt_logprobs: alternatives,
    ...(scale === 1 ? {} : { prompt_logprobs_temperature: scale }),
    // Preceptor leaves out what nobody asked for; vLLM reports the whole prompt.
    ...(profile.scalesPrompts && from > 1 ? { prompt_logprobs_from: from } : {}),
  };
}

/** Whole distributions for tokens from…to−1, in as many requests as keep each answer small. */
export async function* remoteDistributions(
  remote: Remote,
  request: DistributionsRequest,
): AsyncGenerator<Float32Array> {
  if (!remote.profile.wholeRows) throw cannot(remote, "report whole distributions");
  checkRoom(remote, request.to);
  yield* rowsOf(remote, request);
}

/** Chunks (≤ DISTRIBUTION_ROWS, vocabulary) of log-probs at the temperature asked for. */
async function* rowsOf(
  remote: Remote,
  request: Pick<LogprobsRequest, "adapter" | "client" | "priority" | "signal" | "temperature"> & Span,
): AsyncGenerator<Float32Array> {
  const { profile, options } = remote;
  const { vocabSize } = profile;
  const reported = profile.scalesPrompts ? 0 : request.ids.length;
  const rows = Math.min(DISTRIBUTION_ROWS, Math.floor(MAX_WHOLE_ENTRIES / vocabSize));
  if (reported * vocabSize > MAX_WHOLE_ENTRIES)
    throw cannot(remote, `report whole distributions of a text of ${reported} tokens`);
  for (let from = request.from; from < request.to; from += rows) {
    const span = { ids: request.ids, from, to: Math.min(from + rows, request.to) };
    const { positions } = await scorePrompt(remote, request, span, { alternatives: -1, scale: 1 });
    const chunk = new Float32Array(positions.length * vocabSize);
    positions.forEach((position, row) => {
      if (position.ids.length < vocabSize) throw garbage(`answered ${position.ids.length} of ${vocabSize} log-probs`);
      fill(chunk.subarray(row * vocabSize, (row + 1) * vocabSize), position, request.temperature / options.tempered);
    });
    yield chunk;
  }
}

/** (vocabulary) log-probs by id, divided by a temperature and normalised again. */
function fill(row: Float32Array, { ids, logprobs }: WirePosition, temperature: number): void {
  let sum = 0;
  for (const logprob of logprobs) sum += Math.exp(logprob / temperature);
  const logNormaliser = Math.log(sum);
  ids.forEach((id, i) => {
    row[id] = logprobs[i]! / temperature - logNormaliser;
  });
}

/** vLLM scores a text only if it may sample a token behind it. `length`: tokens of the text up to the last one of interest. */
function checkRoom({ options, profile }: Remote, length: number): void {
  const { contextLength, scoresOnly } = profile;
  if (scoresOnly || contextLength === null || length < contextLength) return;
  throw fail(
    "context_length_exceeded",
    `the text has ${length} tokens and the server of ${options.name} can score ${contextLength - 1}: its context of ${contextLength} must ` +
      "hold one token more than the text; shorten the text, or serve the model with a longer context",
  );
}

function cannot({ options }: Remote, what: string): Error {
  return fail("unsupported_by_backend", `the server of ${options.name} cannot ${what}`);
}
