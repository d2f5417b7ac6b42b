import { fail } from "../../errors.ts";
import type { LogprobsRequest, LogprobsResult, LogprobsSequence } from "../engine.ts";

/**
 * A result from whole distributions: everything that can be asked of a position follows from its row. `chunks`: rows × V
 * log-probs each, of the tokens from…to−1 in order.
 */
export async function resultOfRows(
  request: Pick<LogprobsRequest, "topK" | "rank" | "entropy">,
  { at, atWidth = 0, reference }: LogprobsSequence,
  { ids, from, to, vocabSize }: { ids: Int32Array; from: number; to: number; vocabSize: number },
  chunks: AsyncIterable<Float32Array>,
): Promise<LogprobsResult> {
  const rows = to - from;
  const topK = request.topK ?? 0;
  const result: LogprobsResult = {
    from,
    to,
    cachedTokens: 0,
    logprobs: new Float32Array(rows),
    ...(request.rank ? { rank: new Int32Array(rows) } : {}),
    ...(request.entropy ? { entropy: new Float32Array(rows) } : {}),
    ...(topK > 0 ? { topIds: new Int32Array(rows * topK), topLogprobs: new Float32Array(rows * topK) } : {}),
    ...(at ? { at: new Float32Array(rows * atWidth) } : {}),
    ...(reference ? { kl: new Float32Array(rows) } : {}),
  };
  const theirs = reference && rowsIn(reference, vocabSize);
  let i = 0;
  for await (const row of rowsIn(chunks, vocabSize)) {
    const own = ids[from + i]!;
    result.logprobs[i] = row[own]!;
    if (result.rank) result.rank[i] = rankOf(row, own);
    if (result.entropy) result.entropy[i] = entropyOf(row);
    if (topK > 0) {
      const best = bestOf(row, topK);
      result.topIds!.set(best, i * topK);
      result.topLogprobs!.set(
        best.map((id) => row[id]!),
        i * topK,
      );
    }
    for (let j = i * atWidth; at && j < (i + 1) * atWidth; j++) result.at![j] = row[at[j]!]!;
    if (theirs) {
      const next = await theirs.next();
      if (next.done) throw endedEarly();
      result.kl![i] = divergence(next.value, row);
    }
    i++;
  }
  if (i < rows) throw endedEarly();
  // Whoever produces the reference must not wait for a reader that has left.
  await theirs?.return(undefined);
  return result;
}

function endedEarly(): Error {
  return fail("engine_failed", "an engine ended its distributions early; send the request again");
}

async function* rowsIn(chunks: AsyncIterable<Float32Array>, vocabSize: number): AsyncGenerator<Float32Array> {
  for await (const chunk of chunks) {
    for (let start = 0; start < chunk.length; start += vocabSize) yield chunk.subarray(start, start + vocabSize);
  }
}

/** 1 = the most likely id. */
function rankOf(row: Float32Array, id: number): number {
  let rank = 1;
  for (const logprob of row) if (logprob > row[id]!) rank++;
  return rank;
}

/** Nats. */
function entropyOf(row: Float32Array): number {
  let sum = 0;
  for (const logprob of row) sum -= Math.exp(logprob) * logprob;
  return sum;
}

function bestOf(row: Float32Array, k: number): number[] {
  return Array.from(row.keys())
    .sort((a, b) => row[b]! - row[a]!)
    .slice(0, k);
}

/** KL(p ‖ q) = Σ p (log p − log q), nats. */
function divergence(p: Float32Array, q: Float32Array): number {
  let sum = 0;
  for (let id = 0; id < p.length; id++) sum += Math.exp(p[id]!) * (p[id]! - q[id]!);
  return sum;
}
