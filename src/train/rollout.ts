/** A group of explanations of one question, as the policy draws them. */
import type { RequestOptions } from "../engine/engine.ts";
import type { TeacherFormat } from "../rlt/formats.ts";
import type { Sampled } from "../rlt/sampled.ts";
import type { TextModel } from "../text/text.ts";
import { createWriting } from "../text/writing.ts";
import type { Current } from "./policy.ts";

export interface RolloutRequest extends Pick<RequestOptions, "signal" | "client"> {
  promptIds: Int32Array;
  n: number;
  temperature: number;
  topP: number;
  /** 0, the default: no limit. */
  topK?: number;
  maxTokens: number;
  seed: number;
  eosIds: readonly number[];
}

export interface Completion extends Sampled {
  /** Raw text, the closing tag included where it was written. */
  text: string;
  /** Ended by the tag or the end of turn, not by the limit. */
  ended: boolean;
}

/** `close` "": a text that ends with its turn alone. */
export async function rollout(
  { engine, adapter }: Current,
  text: TextModel,
  { close }: Pick<TeacherFormat, "close">,
  request: RolloutRequest,
): Promise<Completion[]> {
  const { promptIds, n, temperature, topP, topK = 0, maxTokens, seed, eosIds, signal, client } = request;
  const writings = Array.from({ length: n }, () => createWriting(text, close));
  const drawn = Array.from(
    { length: n },
    () => ({ ids: [], logprobs: [], errorBounds: [], ended: false }) as Omit<Completion, "text">,
  );
  const events = engine.sample({
    promptIds,
    n,
    params: { temperature, topP, topK, maxTokens },
    seed,
    stopIds: eosIds,
    stopTexts: close === "" ? [] : [close],
    shouldStop: (index, ids) => writings[index]!.push(ids.at(-1)!),
    adapter,
    priority: "job",
    signal,
    client,
  });
  for await (const event of events) {
    if (event.type === "token") {
      const own = drawn[event.index]!;
      own.ids.push(event.id);
      own.logprobs.push(event.logprob);
      own.errorBounds.push(event.errorBound ?? 0);
    } else if (event.type === "finish") {
      drawn[event.index]!.ended = event.reason === "stop";
      writings[event.index]!.end();
    }
  }
  return drawn.map((own, i) => ({ ...own, text: writings[i]!.text + (writings[i]!.closed ? close : "") }));
}
