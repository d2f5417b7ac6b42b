import type { EngineModel } from "../../src/engine/engine.ts";
import { PEER_SHAPES, type PeerFigures } from "./peers/figures.ts";

/** The embedded engine on the shapes that the peers are measured on, and a few that only it has. */

const REPETITIONS = 3;
const PARAMS = { temperature: 0.7, topP: 1, topK: 0 };
/** Streams with prompts of their own, for continuous batching. */
export const STREAMS = [1, 4, 16, 64];
/** Explanations of one question that a student ranks. */
export const CANDIDATES = { count: 16, prompt: 300, explanation: 150 } as const;

/** Ids without a pattern, the same every time. */
export function textOf(model: Pick<EngineModel, "vocabSize">, length: number, which: number): Int32Array {
  let state = (which + 1) * 2_654_435_761;
  return Int32Array.from({ length }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state % model.vocabSize;
  });
}

/** A prompt that no repetition has seen: the prefix cache must not help where the peers have none. */
let fresh = 1000;

export async function ourFigures(model: EngineModel, name: string): Promise<PeerFigures & { wallSeconds: number }> {
  const { prompt, newTokens, group, prefill } = PEER_SHAPES;
  let [oneStream, grouped, scored, wall] = [0, 0, 0, Number.POSITIVE_INFINITY];
  for (let i = 0; i < REPETITIONS; i++) {
    oneStream = Math.max(oneStream, (await decodeRate(model, { prompt, n: 1, tokens: newTokens })).rate);
    const together = await decodeRate(model, { prompt, n: group, tokens: newTokens });
    grouped = Math.max(grouped, together.rate);
    wall = Math.min(wall, together.wallSeconds);
    scored = Math.max(scored, await scoreRate(model, prefill));
  }
  return { name, oneStream, group: grouped, prefill: scored, groupWallSeconds: wall, wallSeconds: wall };
}

/** Tokens per second from the first token to the last, and seconds from the request to the last token. */
async function decodeRate(
  model: EngineModel,
  { prompt, n, tokens }: { prompt: number; n: number; tokens: number },
): Promise<{ rate: number; wallSeconds: number }> {
  const promptIds = textOf(model, prompt, fresh++);
  const params = { ...PARAMS, maxTokens: tokens };
  const asked = performance.now();
  let first = 0;
  let drawn = 0;
  for await (const event of model.sample({ promptIds, n, params, seed: 1, stopIds: [] })) {
    if (event.type !== "token") continue;
    first ||= performance.now();
    drawn++;
  }
  const ended = performance.now();
  // The first token of every sequence belongs to the prompt.
  return { rate: ((drawn - n) * 1000) / (ended - first), wallSeconds: (ended - asked) / 1000 };
}

/** Tokens per second of streams with prompts of their own, while all of them run. */
export async function streamsRate(model: EngineModel, streams: number): Promise<number> {
  let best = 0;
  for (let i = 0; i < REPETITIONS - 1; i++) best = Math.max(best, await streamsOnce(model, streams));
  return best;
}

async function streamsOnce(model: EngineModel, streams: number): Promise<number> {
  let [firsts, started, ended, tokens] = [0, 0, 0, 0];
  // Prompts are computed in turn while the first streams run: those must not end before the last one begins.
  const maxTokens = PEER_SHAPES.newTokens + streams * 3;
  const run = async (): Promise<void> => {
    const promptIds = textOf(model, 128, fresh++);
    let first = true;
    for await (const event of model.sample({
      promptIds,
      n: 1,
      params: { ...PARAMS, maxTokens },
      seed: 1,
      stopIds: [],
    })) {
      if (event.type === "finish") ended ||= performance.now();
      if (event.type !== "token") continue;
      if (started > 0 && ended === 0) tokens++;
      if (first && ++firsts === streams) started = performance.now();
      first = false;
    }
  };
  await Promise.all(Array.from({ length: streams }, run));
  return (tokens * 1000) / (ended - started);
}

/** Log-probs of every token of one text, per second. */
async function scoreRate(model: EngineModel, length: number): Promise<number> {
  const ids = textOf(model, length, fresh++);
  const started = performance.now();
  await model.logprobs({ sequences: [{ ids }], temperature: 0.7 });
  return (length * 1000) / (performance.now() - started);
}

/** Texts that continue one question, as different from each other as explanations are: sampled, from timid to wild. */
export async function sampleCandidates(model: EngineModel, which: number): Promise<Int32Array[]> {
  const { count, prompt, explanation } = CANDIDATES;
  const promptIds = textOf(model, prompt, which);
  return Promise.all(
    Array.from({ length: count }, async (_, i) => {
      const params = { ...PARAMS, temperature: 0.3 + i / 12, maxTokens: explanation - 3 * i };
      const ids = [...promptIds];
      for await (const event of model.sample({ promptIds, n: 1, params, seed: i, stopIds: [] })) {
        if (event.type === "token") ids.push(event.id);
      }
      return Int32Array.from(ids);
    }),
  );
}

/** Mean log-prob of each candidate, and tokens (the question's counted for each) per second. */
export async function scoreCandidates(
  model: EngineModel,
  candidates: readonly Int32Array[],
): Promise<{ means: number[]; rate: number }> {
  const tokens = candidates.reduce((sum, ids) => sum + ids.length, 0);
  const started = performance.now();
  const sequences = candidates.map((ids) => ({ ids, from: CANDIDATES.prompt }));
  const results = await model.logprobs({ sequences, temperature: 0.7 });
  const rate = (tokens * 1000) / (performance.now() - started);
  return { means: results.map(({ logprobs }) => logprobs.reduce((a, b) => a + b, 0) / logprobs.length), rate };
}

/** Rank correlation (Spearman 1904); no ties among means of this many numbers. */
export function spearman(a: readonly number[], b: readonly number[]): number {
  const ranks = (values: readonly number[]): number[] => {
    const order = [...values.keys()].sort((i, j) => values[i]! - values[j]!);
    const out = new Array<number>(values.length).fill(0);
    for (const [rank, i] of order.entries()) out[i] = rank;
    return out;
  };
  const [x, y] = [ranks(a), ranks(b)];
  const n = a.length;
  const distance = x.reduce((sum, rank, i) => sum + (rank - y[i]!) ** 2, 0);
  return 1 - (6 * distance) / (n * (n * n - 1));
}
