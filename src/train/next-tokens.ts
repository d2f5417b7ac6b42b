/** What the weights of a session say of given tokens, one entry per token of each sequence. */
import type { LogprobsRequest, LogprobsResult, LogprobsSequence, RequestOptions } from "../engine/engine.ts";
import type { TrainingSession } from "./session.ts";

export interface ScoredSequence {
  ids: Int32Array;
  /** Per token: ids whose log-probs are wanted in its place. */
  at?: readonly (readonly number[])[] | undefined;
}

export interface ScoreRequest extends Omit<RequestOptions, "adapter"> {
  sequences: readonly ScoredSequence[];
  temperature: number;
  topK: number;
  entropy: boolean;
}

/** Arrays are as long as the tokens; the first token has no prediction. */
export interface TokenScores {
  logprobs: (number | null)[];
  /** Nats, of the distribution after each token; null only behind the last token of a full context. */
  entropy?: (number | null)[];
  /** The most likely ids in the place of each token. */
  top?: ({ id: number; logprob: number }[] | null)[];
  at?: (number[] | null)[];
}

export async function scoreTokens(session: TrainingSession, request: ScoreRequest): Promise<TokenScores[]> {
  const { sequences, temperature, topK, entropy, client, priority, signal } = request;
  const asked: LogprobsRequest = {
    sequences: sequences.map((sequence) => asEngine(sequence, entropy, session.contextLength)),
    temperature,
    topK,
    entropy,
    client,
    priority,
    signal,
  };
  const results = await session.logprobs(asked);
  return results.map((result, i) => toScores(result, sequences[i]!, { topK, entropy }));
}

/** The engine's rows speak of a token and the distribution before it: one more token brings the distribution after the last. */
function asEngine({ ids, at }: ScoredSequence, entropy: boolean, contextLength: number): LogprobsSequence {
  const T = ids.length;
  const longer = entropy && T < contextLength;
  const all = longer ? Int32Array.from([...ids, ids[T - 1]!]) : ids;
  const width = widthOf(at);
  if (width === 0) return { ids: all };
  // (rows, width), filled up with any id
  const wanted = new Int32Array((all.length - 1) * width);
  for (let t = 1; t < T; t++) wanted.set(at?.[t] ?? [], (t - 1) * width);
  return { ids: all, at: wanted, atWidth: width };
}

const widthOf = (at: ScoredSequence["at"]): number => (at ?? []).reduce((most, ids) => Math.max(most, ids.length), 0);

function toScores(
  result: LogprobsResult,
  { ids, at }: ScoredSequence,
  { topK, entropy }: { topK: number; entropy: boolean },
): TokenScores {
  const T = ids.length;
  const perToken = <V>(of: (row: number) => V): (V | null)[] =>
    Array.from({ length: T }, (_, t) => (t === 0 ? null : of(t - 1)));
  const scores: TokenScores = { logprobs: perToken((row) => result.logprobs[row]!) };
  if (entropy) scores.entropy = Array.from({ length: T }, (_, t) => result.entropy?.[t] ?? null);
  if (topK > 0) {
    scores.top = perToken((row) =>
      Array.from({ length: topK }, (_, k) => ({
        id: result.topIds![row * topK + k]!,
        logprob: result.topLogprobs![row * topK + k]!,
      })),
    );
  }
  if (at) {
    const width = widthOf(at);
    scores.at = perToken((row) => {
      const start = row * width;
      return Array.from(result.at?.subarray(start, start + (at[row + 1]?.length ?? 0)) ?? []);
    });
  }
  return scores;
}
