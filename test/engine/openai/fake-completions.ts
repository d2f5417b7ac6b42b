/** `/v1/completions` as vLLM 0.33 answers it: fields, their order and defaults as in its entrypoints/openai/completion. */
import type { ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { errorBody, type Fault, mangled, sendJson, toJson } from "./fake-faults.ts";
import type { FakeSettings, Seen } from "./fake-vllm.ts";
import { bestOf, type Drawn, drawTokens, rankOf, rowsOf, type Toy, textOf } from "./toy-model.ts";

export interface CompletionBody {
  model: string;
  prompt: number[];
  max_tokens?: number;
  n?: number;
  seed?: number;
  temperature?: number;
  top_p?: number;
  top_k?: number;
  stop?: string[];
  stop_token_ids?: number[];
  include_stop_str_in_output?: boolean;
  ignore_eos?: boolean;
  echo?: boolean;
  logprobs?: number;
  prompt_logprobs?: number;
  /** Preceptor's own; vLLM ignores both. */
  prompt_logprobs_temperature?: number;
  prompt_logprobs_from?: number;
  stream?: boolean;
  stream_options?: { include_usage?: boolean };
  return_token_ids?: boolean;
  return_tokens_as_token_ids?: boolean;
}

export interface Exchange {
  body: CompletionBody;
  toy: Toy;
  settings: FakeSettings;
  seen: Seen;
  fault: Fault | null;
  response: ServerResponse;
  /** Tokens of the prompt that an earlier one had in common with it. */
  cachedTokens: number;
}

interface Sequence {
  index: number;
  tokens: Generator<Drawn>;
  ids: number[];
  text: string;
  finish: "stop" | "length" | null;
  stopReason: number | string | null;
}

export const VERSION = "0.33.0";
/** Where vLLM takes sampling for greedy. */
const GREEDY_BELOW = 1e-5;

export async function answerCompletion(exchange: Exchange): Promise<void> {
  const { body, response, seen } = exchange;
  const refusal = refusalOf(exchange);
  if (refusal) {
    sendJson(response, 400, errorBody(refusal.message, 400, "BadRequestError", refusal.param ?? null));
    return;
  }
  response.once("close", () => {
    if (!response.writableEnded) seen.disconnects++;
  });
  if (body.stream) await streamed(exchange);
  else await whole(exchange);
}

function refusalOf({ body, settings, toy }: Exchange): { message: string; param?: string } | null {
  const { max_tokens: maxTokens = 16, prompt_logprobs: scores, logprobs = 0, n = 1, temperature = 1 } = body;
  const { maxModelLen, lacks, preceptor } = settings;
  const most = settings.maxLogprobs === -1 ? toy.vocabSize : settings.maxLogprobs;
  if (lacks.has("n") && n > 1) return { message: "n must be 1" };
  if (body.stream && scores !== undefined && scores !== 0) {
    return { message: "`prompt_logprobs` are not available when `stream=True`.", param: "prompt_logprobs" };
  }
  if (body.prompt.some((id) => id < 0 || id >= toy.vocabSize)) {
    return { message: `Token id ${body.prompt.find((id) => id < 0 || id >= toy.vocabSize)} is out of vocabulary` };
  }
  if (maxTokens > maxModelLen) {
    const message = `max_tokens=${maxTokens} cannot be greater than max_model_len=${maxModelLen}. Please request fewer output tokens.`;
    return { message, param: "max_tokens" };
  }
  if (body.prompt.length > maxModelLen) {
    const message =
      `This model's maximum context length is ${maxModelLen} tokens. However, your prompt contains ${body.prompt.length} input ` +
      "tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input prompt.";
    return { message, param: "input_tokens" };
  }
  if (maxTokens < 1 && !body.echo && !preceptor) {
    return { message: `max_tokens must be at least 1, got ${maxTokens}.`, param: "max_tokens" };
  }
  if (body.prompt.length === maxModelLen && !preceptor) {
    const message =
      `The decoder prompt (length ${maxModelLen}) plus the number of requested output tokens (at least 1) is longer than the ` +
      `maximum model length of ${maxModelLen}. Make sure that \`max_model_len\` is no smaller than the number of text tokens ` +
      "(prompt + requested output tokens).";
    return { message };
  }
  if (temperature > 2) return { message: `temperature must be in [0, 2], got ${temperature}.`, param: "temperature" };
  if (n > 1 && temperature < GREEDY_BELOW) return { message: `n must be 1 when using greedy sampling, got ${n}.` };
  const asked = scores === -1 ? toy.vocabSize : (scores ?? 0);
  if (asked > most) {
    const message = `Requested prompt logprobs of ${asked}, which is greater than max allowed: ${most}`;
    return { message, param: "prompt_logprobs" };
  }
  if (logprobs > most) {
    const message = `Requested sample logprobs of ${logprobs}, which is greater than max allowed: ${most}`;
    return { message, param: "logprobs" };
  }
  return null;
}

function sequencesOf({ body, toy, settings }: Exchange): Sequence[] {
  const { temperature = 1, top_k: topK = 0, top_p: topP = 1, seed = 0 } = body;
  const n = settings.lacks.has("n_ignored") ? 1 : (body.n ?? 1);
  return Array.from({ length: n }, (_, index) => ({
    index,
    tokens: drawTokens(toy, body.prompt, { temperature, topK, topP, seed: seed + index }),
    ids: [],
    text: "",
    finish: null,
    stopReason: null,
  }));
}

/** Tokens that the answer may have, as vLLM's get_max_tokens tells. */
function limitOf({ body, settings }: Exchange): number {
  const { max_tokens: maxTokens = 16 } = body;
  return Math.min(maxTokens, settings.maxModelLen - body.prompt.length);
}

/** Draws a sequence's next token and ends it where something says so: in the order of vLLM's check_stop, then by its text. */
function advance(sequence: Sequence, exchange: Exchange): { drawn: Drawn; text: string } {
  const { body, settings, seen } = exchange;
  const {
    stop = [],
    stop_token_ids: stopIds = [],
    ignore_eos: ignoreEos,
    include_stop_str_in_output: includeStop,
  } = body;
  const drawn = sequence.tokens.next().value as Drawn;
  seen.tokens++;
  const before = sequence.text.length;
  sequence.ids.push(drawn.id);
  sequence.text += textOf(drawn.id);
  const end = (finish: "stop" | "length", reason: number | string | null = null): void => {
    sequence.finish = finish;
    sequence.stopReason = reason;
  };
  const stopText = stop.find((text) => sequence.text.includes(text));
  if (drawn.id === settings.eosId && !ignoreEos) end("stop");
  else if (stopIds.includes(drawn.id) && !settings.lacks.has("stop_token_ids")) end("stop", drawn.id);
  else if (sequence.ids.length >= limitOf(exchange)) end("length");
  else if (stopText !== undefined && !settings.lacks.has("stop")) {
    end("stop", stopText);
    if (!includeStop) sequence.text = sequence.text.slice(0, sequence.text.indexOf(stopText));
  }
  return { drawn, text: sequence.text.slice(before) };
}

interface CompletionLogprobs {
  text_offset: number[];
  token_logprobs: number[];
  tokens: string[];
  top_logprobs: Record<string, number>[];
}

/** JSON has no infinity; vLLM writes this for it. */
const finite = (logprob: number): number => Math.max(logprob, -9999);

function logprobsOf(
  { body, settings }: Exchange,
  drawn: readonly Drawn[],
  firstOffset: number,
): CompletionLogprobs | null {
  const { logprobs: k, return_tokens_as_token_ids: byId } = body;
  if (k === undefined) return null;
  const name = (id: number): string => (byId && !settings.lacks.has("named_tokens") ? `token_id:${id}` : textOf(id));
  const out: CompletionLogprobs = { text_offset: [], token_logprobs: [], tokens: [], top_logprobs: [] };
  let offset = firstOffset;
  for (const { id, row, scaled } of drawn) {
    const reported = settings.logprobsMode === "processed_logprobs" ? scaled : row;
    out.text_offset.push(offset);
    out.token_logprobs.push(finite(reported[id]!));
    out.tokens.push(name(id));
    // The sampled token first, then the k most likely; one that is among them stands there once.
    const ids = new Set([id, ...bestOf(reported, k)]);
    out.top_logprobs.push(Object.fromEntries([...ids].map((each) => [name(each), finite(reported[each]!)])));
    offset += name(id).length;
  }
  return out;
}

async function streamed(exchange: Exchange): Promise<void> {
  const { body, response, settings, seen, fault } = exchange;
  const { return_token_ids: withIds } = body;
  const sequences = sequencesOf(exchange);
  const head = headOf(exchange);
  const open = (): Sequence[] => sequences.filter(({ finish }) => finish === null);
  const offsets = sequences.map(() => 0);
  let tokens = 0;
  let gone = false;
  response.once("close", () => {
    gone = true;
    seen.openStreams--;
  });
  seen.openStreams++;
  seen.mostOpenStreams = Math.max(seen.mostOpenStreams, seen.openStreams);
  seen.sequences += sequences.length;
  response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" });
  const say = (value: object): void => void response.write(`data: ${toJson(value)}\n\n`);
  while (open().length > 0) {
    await sleep(settings.tokenMs);
    for (const sequence of open()) {
      if (gone) return;
      if (fault && "after" in fault && tokens >= fault.after) {
        interrupt(fault, response);
        return;
      }
      if (fault?.kind === "not-json") {
        response.end("data: upstream connect error\n\n");
        return;
      }
      const first = sequence.ids.length === 0;
      const { drawn, text } = advance(sequence, exchange);
      tokens++;
      const logprobs = logprobsOf(exchange, [drawn], offsets[sequence.index]!);
      offsets[sequence.index]! += logprobs?.tokens[0]?.length ?? 0;
      const hasIds = withIds && !settings.lacks.has("token_ids");
      const choice = {
        index: sequence.index,
        text,
        logprobs,
        finish_reason: sequence.finish,
        stop_reason: sequence.stopReason,
        prompt_token_ids: first && hasIds ? body.prompt : null,
        token_ids: hasIds ? [drawn.id] : null,
        weight_versions: null,
      };
      say({ ...head, choices: [mangled(fault, choice)], kv_transfer_params: null });
    }
  }
  if (body.stream_options?.include_usage) {
    const usage = { ...usageOf(exchange, sequences), ...detailsOf(exchange) };
    say({ ...head, choices: [], usage, system_fingerprint: settings.fingerprint ?? undefined });
  }
  response.end("data: [DONE]\n\n");
}

/** What a fault does in the middle of a stream. */
function interrupt(fault: Extract<Fault, { after: number }>, response: ServerResponse): void {
  if (fault.kind === "cut") response.destroy();
  else if (fault.kind === "end") response.end();
  else {
    const said = errorBody(fault.message, 500, "InternalServerError");
    response.end(`data: ${toJson(said)}\n\ndata: [DONE]\n\n`);
  }
}

async function whole(exchange: Exchange): Promise<void> {
  const { body, response, settings, seen, fault } = exchange;
  const sequences = sequencesOf(exchange);
  seen.sequences += sequences.length;
  // With echo, or at Preceptor, nothing is sampled that nobody asked for.
  const samples = (body.max_tokens ?? 16) > 0;
  const drawn = sequences.map((sequence): Drawn[] => {
    const tokens: Drawn[] = [];
    while (samples && sequence.finish === null) tokens.push(advance(sequence, exchange).drawn);
    return tokens;
  });
  await sleep(settings.tokenMs * Math.max(1, ...drawn.map(({ length }) => length)));
  if (fault?.kind === "not-json") {
    response.writeHead(200, { "content-type": "text/plain" }).end("upstream connect error");
    return;
  }
  const hasIds = body.return_token_ids && !settings.lacks.has("token_ids");
  const scores = promptLogprobsOf(exchange);
  const choices = sequences.map((sequence, i) =>
    mangled(fault, {
      index: sequence.index,
      text: sequence.text,
      logprobs: logprobsOf(exchange, drawn[i]!, 0),
      finish_reason: sequence.finish ?? "length",
      stop_reason: sequence.stopReason,
      token_ids: hasIds ? sequence.ids : null,
      prompt_logprobs: scores,
      prompt_token_ids: hasIds ? body.prompt : null,
      routed_experts: null,
      weight_versions: null,
    }),
  );
  sendJson(response, 200, {
    ...headOf(exchange),
    choices,
    service_tier: null,
    system_fingerprint: settings.fingerprint,
    usage: {
      ...usageOf(exchange, sequences),
      prompt_tokens_details: null,
      ...detailsOf(exchange),
      completion_tokens_details: null,
    },
    kv_transfer_params: null,
    ec_transfer_params: null,
    metrics: null,
  });
}

let answers = 0;

function headOf({ body }: Exchange): object {
  const created = Math.floor(Date.now() / 1000);
  return {
    id: `cmpl-${(++answers).toString(16).padStart(32, "0")}`,
    object: "text_completion",
    created,
    model: body.model,
  };
}

function usageOf({ body }: Exchange, sequences: readonly Sequence[]): object {
  const completion = sequences.reduce((sum, { ids }) => sum + ids.length, 0);
  const prompt = body.prompt.length;
  return { prompt_tokens: prompt, total_tokens: prompt + completion, completion_tokens: completion };
}

/** Only where the server was started with --enable-prompt-tokens-details. */
function detailsOf({ settings, cachedTokens }: Exchange): object {
  if (!settings.promptDetails) return {};
  return { prompt_tokens_details: { cached_tokens: cachedTokens } };
}

/** One entry per prompt token, of the first nothing; its own token first, then the k most likely with their ranks. */
function promptLogprobsOf({ body, toy, settings }: Exchange): (Record<string, object> | null)[] | null {
  const { prompt, prompt_logprobs: k } = body;
  if (k === undefined || settings.lacks.has("prompt_logprobs")) return null;
  const temperature = settings.preceptor ? (body.prompt_logprobs_temperature ?? 1) : 1;
  const from = settings.preceptor ? (body.prompt_logprobs_from ?? 1) : 1;
  const rows = rowsOf(toy, prompt, temperature);
  return [
    null,
    ...rows.map((row, i) => {
      if (i + 1 < from) return null;
      const own = prompt[i + 1]!;
      const best = bestOf(row, k === -1 ? row.length : k);
      const ranked = best.map((id, rank) => [id, rank + 1] as const);
      const entries = new Map([[own, rankOf(row, own)], ...ranked]);
      return Object.fromEntries(
        [...entries].map(([id, rank]) => [id, { logprob: finite(row[id]!), rank, decoded_token: textOf(id) }]),
      );
    }),
  ];
}
