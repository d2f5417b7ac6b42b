import { setImmediate as yieldToOthers } from "node:timers/promises";
import { fail } from "../../errors.ts";
import type { HeldModel } from "../models/registry.ts";
import type { PromptScores, ScoreOptions } from "./prompt-logprobs.ts";

/**
 * Scores a prompt with every id of the vocabulary as an alternative. All rows are kept until they are answered: checkSize
 * has seen to it that they are few.
 */
export async function scoreWholeVocabulary(
  held: HeldModel,
  ids: Int32Array,
  { from, temperature, client, priority, signal }: Omit<ScoreOptions, "k">,
): Promise<PromptScores> {
  const { vocabSize: k } = held.engine;
  const rows = Math.max(0, ids.length - from);
  const scores: PromptScores = {
    from,
    logprobs: new Float32Array(rows),
    rank: new Int32Array(rows),
    k,
    topIds: new Int32Array(rows * k),
    topLogprobs: new Float32Array(rows * k),
    // Distributions come without the number, and what is sampled next finds what this has read: 0 claims nothing.
    cachedTokens: rows === 0 ? undefined : 0,
  };
  if (rows === 0) return scores;
  const request = { ids, from, to: ids.length, temperature, adapter: held.adapter, client, priority, signal };
  let j = 0;
  for await (const chunk of held.engine.distributions(request)) {
    for (let start = 0; start < chunk.length; start += k) {
      fillRow(scores, j, chunk.subarray(start, start + k), ids[from + j]!);
      j++;
      // A row of 150,000 ids takes 50 ms.
      await yieldToOthers();
    }
  }
  return scores;
}

/** `row`: (V) log-probs of the token at row j, which is `own`. */
function fillRow(scores: PromptScores, j: number, row: Float32Array, own: number): void {
  if (row.some(Number.isNaN)) {
    throw fail("engine_failed", "the model produced values that are not numbers; its weights or adapter overflow");
  }
  const start = j * scores.k;
  sortedKeys(row, own).forEach((key, i) => {
    const id = idOf(key, own);
    scores.topIds[start + i] = id;
    scores.topLogprobs[start + i] = row[id]!;
    if (id === own) scores.rank[j] = i + 1;
  });
  scores.logprobs[j] = row[own]!;
}

/** Room for ids beside the 32 bits of a log-prob in the 53 bits that doubles hold exactly: 2 million. */
const ID_ROOM = 2 ** 21;

/**
 * (V) by falling log-prob, equals by id, but `own` before its equals: its rank is then one more than the number of likelier
 * ids, as the engine reports it elsewhere. Log-prob and id are sorted as one number, which is several times as fast as a comparison.
 */
function sortedKeys(row: Float32Array, own: number): Float64Array {
  const bits = new Uint32Array(row.buffer, row.byteOffset, row.length);
  const keys = new Float64Array(row.length);
  for (let id = 0; id < keys.length; id++) keys[id] = falling(bits[id]!) * ID_ROOM + (id === own ? 0 : id + 1);
  return keys.sort();
}

function idOf(key: number, own: number): number {
  const rest = key % ID_ROOM;
  return rest === 0 ? own : rest - 1;
}

/** Bits of a float as a whole number that falls where the float rises: of negative ones the magnitude falls by itself. */
function falling(bits: number): number {
  return bits >= 2 ** 31 ? bits : 2 ** 31 - 1 - bits;
}
