import { setImmediate as yieldToOthers } from "node:timers/promises";
import type { TextModel } from "../../text/text.ts";
import type { SampledToken } from "./generate.ts";
import { finiteLogprob, type PromptScores } from "./prompt-logprobs.ts";
import type { ChatLogprobs } from "./schemas-chat.ts";
import type { CompletionLogprobs } from "./schemas-completions.ts";
import { countCharacters, tokenIdName, tokenName, tokenText } from "./token-text.ts";

/** Rows built between two turns of the event loop (about 1 ms). */
const ROWS_PER_TURN = 256;

export function emptyCompletionLogprobs(): CompletionLogprobs {
  return { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] };
}

/**
 * Builds OpenAI's completions form token by token. Offsets run through the whole text of a choice, so one builder
 * serves all of its chunks.
 */
export interface CompletionLogprobsBuilder {
  /** The prompt's tokens (with `echo`): the first has no log-prob. `k` alternatives each. */
  prompt(ids: Int32Array, scores: PromptScores, k: number): Promise<CompletionLogprobs>;
  /** `shown`: the token's bytes are part of the text (a special token's may not be). */
  sampled(token: SampledToken, shown: boolean): CompletionLogprobs;
}

export interface CompletionLogprobsOptions {
  /** Special tokens are left out of the text. */
  skipSpecial: boolean;
  /** Tokens are named by their ids. Offsets count the characters of the text all the same. */
  asTokenIds: boolean;
}

export function createCompletionLogprobs(
  model: TextModel,
  { skipSpecial, asTokenIds }: CompletionLogprobsOptions,
): CompletionLogprobsBuilder {
  const nameOf: NameOf = asTokenIds ? tokenIdName : (id) => tokenName(model, id);
  let offset = 0;

  function add(out: CompletionLogprobs, id: number, logprob: number | null, top: Record<string, number> | null): void {
    const name = nameOf(id);
    out.tokens.push(name);
    out.token_logprobs.push(logprob);
    if (top !== null && logprob !== null) top[name] = logprob;
    out.top_logprobs.push(top);
    out.text_offset.push(offset);
  }

  return {
    async prompt(ids, scores, k) {
      const out = emptyCompletionLogprobs();
      for (let i = 0; i < ids.length; i++) {
        const j = i - scores.from;
        const best = j * scores.k;
        const top = j < 0 ? null : topRecord(nameOf, scores.topIds, scores.topLogprobs, best, Math.min(k, scores.k));
        add(out, ids[i]!, j < 0 ? null : finiteLogprob(scores.logprobs[j]!), top);
        offset += countCharacters(model.bytesOf(ids[i]!, true));
        if (i % ROWS_PER_TURN === ROWS_PER_TURN - 1) await yieldToOthers();
      }
      return out;
    },
    sampled(token, shown) {
      const out = emptyCompletionLogprobs();
      const { top } = token;
      const alternatives = top ? topRecord(nameOf, top.ids, top.logprobs, 0, top.ids.length) : createRecord();
      add(out, token.id, finiteLogprob(token.logprob), alternatives);
      if (token.errorBound !== undefined) out.error_bound = [token.errorBound];
      if (shown) offset += countCharacters(model.bytesOf(token.id, !skipSpecial));
      return out;
    },
  };
}

type NameOf = (id: number) => string;

/** Tokens may be called "constructor" or "__proto__". */
const createRecord = (): Record<string, number> => Object.create(null) as Record<string, number>;

function topRecord(
  nameOf: NameOf,
  ids: Int32Array,
  logprobs: Float32Array,
  start: number,
  count: number,
): Record<string, number> {
  const out = createRecord();
  for (let i = start; i < start + count; i++) out[nameOf(ids[i]!)] ??= finiteLogprob(logprobs[i]!);
  return out;
}

export function appendCompletionLogprobs(to: CompletionLogprobs, more: CompletionLogprobs): void {
  if (to.error_bound || more.error_bound) {
    to.error_bound ??= to.tokens.map(() => null);
    for (const bound of more.error_bound ?? more.tokens.map(() => null)) to.error_bound.push(bound);
  }
  for (const token of more.tokens) to.tokens.push(token);
  for (const logprob of more.token_logprobs) to.token_logprobs.push(logprob);
  for (const top of more.top_logprobs) to.top_logprobs.push(top);
  for (const offset of more.text_offset) to.text_offset.push(offset);
}

/** One token in the form of chats. */
export function chatLogprob(model: TextModel, token: SampledToken): ChatLogprobs["content"][number] {
  const entry = (id: number, logprob: number) => {
    const bytes = model.bytesOf(id, true);
    return {
      token: tokenText(model, id),
      logprob: finiteLogprob(logprob),
      bytes: bytes.length === 0 ? null : Array.from(bytes),
    };
  };
  const top = token.top ? Array.from(token.top.ids, (id, i) => entry(id, token.top!.logprobs[i]!)) : [];
  return {
    ...entry(token.id, token.logprob),
    ...(token.errorBound === undefined ? {} : { error_bound: token.errorBound }),
    top_logprobs: top,
  };
}
