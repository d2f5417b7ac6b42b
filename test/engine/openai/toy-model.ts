/**
 * A toy language model: the next token's logits are a pure function of the ids before it. The fake servers compute with it, and
 * the tests know from it what the servers must have answered.
 */

export interface Toy {
  vocabSize: number;
  /** Other numbers are other weights. */
  salt: number;
  /** Logits are divided by it: a tempered copy of the weights. */
  divisor: number;
  /** Text that identifies a LoRA adapter: the logits are a little different with it. */
  adapter: string | null;
}

export const TOY: Toy = { vocabSize: 300, salt: 1, divisor: 1, adapter: null };

/** Murmur3's finaliser: 32 bits in, 32 well mixed bits out. */
function mix(bits: number): number {
  let h = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** In (0, 1]. */
const unit = (bits: number): number => (mix(bits) + 1) / 2 ** 32;

/** What is left of the ids so far; more ids go on from it. */
export function stateOf(ids: Iterable<number>, before = 0x9e3779b9): number {
  let state = before;
  for (const id of ids) state = mix(Math.imul(state, 31) + id + 1);
  return state;
}

/** Probabilities fall with the rank about as r^−1.3, as those of real models do. */
const STEEPNESS = 1.3;
/** Nats by which an adapter moves a logit at most. */
const ADAPTER_NATS = 0.8;

function logitsOf({ vocabSize, salt, divisor, adapter }: Toy, state: number): Float64Array {
  const seed = mix(state ^ Math.imul(salt, 0x27d4eb2f));
  const shift = adapter === null ? null : stateOf(Buffer.from(adapter), seed);
  return Float64Array.from({ length: vocabSize }, (_, id) => {
    const bits = Math.imul(id + 1, 0x9e3779b1);
    const logit = -STEEPNESS * Math.log(unit(seed ^ bits));
    return (logit + (shift === null ? 0 : ADAPTER_NATS * unit(shift ^ bits))) / divisor;
  });
}

/** (V) log-probs of the token after a state. */
export function rowOf(toy: Toy, state: number, temperature = 1): Float32Array {
  const scaled = logitsOf(toy, state).map((logit) => logit / temperature);
  const most = scaled.reduce((a, b) => Math.max(a, b));
  const logSum = most + Math.log(scaled.reduce((sum, logit) => sum + Math.exp(logit - most), 0));
  return Float32Array.from(scaled, (logit) => logit - logSum);
}

/** (T − 1) rows: entry j speaks of token j + 1. */
export function rowsOf(toy: Toy, ids: ArrayLike<number>, temperature = 1): Float32Array[] {
  let state = stateOf([]);
  return Array.from({ length: ids.length - 1 }, (_, i) => {
    state = stateOf([ids[i]!], state);
    return rowOf(toy, state, temperature);
  });
}

/** (T − 1) log-probs of a text's own tokens, from the second on. */
export function ownLogprobs(toy: Toy, ids: ArrayLike<number>, temperature = 1): number[] {
  return rowsOf(toy, ids, temperature).map((row, i) => row[ids[i + 1]!]!);
}

/** The k most likely ids, most likely first; O(V · k). */
export function bestOf(row: Float32Array, k: number): number[] {
  const best: number[] = [];
  for (let id = 0; id < row.length; id++) {
    if (best.length === k && row[id]! <= row[best.at(-1)!]!) continue;
    const at = best.findIndex((other) => row[id]! > row[other]!);
    best.splice(at < 0 ? best.length : at, 0, id);
    if (best.length > k) best.pop();
  }
  return best;
}

/** 1 = the most likely id. */
export function rankOf(row: Float32Array, id: number): number {
  return 1 + row.reduce((count, logprob) => count + (logprob > row[id]! ? 1 : 0), 0);
}

export interface Drawing {
  temperature: number;
  topK: number;
  topP: number;
  seed: number;
}

export interface Drawn {
  id: number;
  /** (V) log-probs at temperature 1 of the distribution it was drawn from, and as scaled by temperature and filters. */
  row: Float32Array;
  scaled: Float32Array;
}

/** Draws after a prompt for as long as it is asked. */
export function* drawTokens(toy: Toy, prompt: ArrayLike<number>, drawing: Drawing): Generator<Drawn> {
  let state = stateOf(Array.from(prompt));
  for (let step = 0; ; step++) {
    const row = rowOf(toy, state);
    // Greedy servers report what they report at 1.
    const scaled = drawing.temperature === 0 ? row : filtered(rowOf(toy, state, drawing.temperature), drawing);
    const id = drawing.temperature === 0 ? bestOf(row, 1)[0]! : pick(scaled, unit(stateOf([drawing.seed, step])));
    yield { id, row, scaled };
    state = stateOf([id], state);
  }
}

/** The first `count` ids that `drawTokens` draws. */
export function drawIds(toy: Toy, prompt: ArrayLike<number>, drawing: Partial<Drawing>, count: number): number[] {
  const ids: number[] = [];
  for (const { id } of drawTokens(toy, prompt, { temperature: 1, topK: 0, topP: 1, seed: 0, ...drawing })) {
    ids.push(id);
    if (ids.length === count) break;
  }
  return ids;
}

function filtered(row: Float32Array, { topK, topP }: Drawing): Float32Array {
  if (topK === 0 && topP === 1) return row;
  const order = bestOf(row, topK > 0 ? Math.min(topK, row.length) : row.length);
  const kept = new Set<number>();
  let mass = 0;
  for (const id of order) {
    if (mass >= topP) break;
    kept.add(id);
    mass += Math.exp(row[id]!);
  }
  return row.map((logprob, id) => (kept.has(id) ? logprob - Math.log(mass) : Number.NEGATIVE_INFINITY));
}

function pick(row: Float32Array, uniform: number): number {
  let left = uniform;
  for (let id = 0; id < row.length; id++) {
    left -= Math.exp(row[id]!);
    if (left <= 0) return id;
  }
  return bestOf(row, 1)[0]!;
}

/** What an id is in the text: every token can be told from every other. */
export const textOf = (id: number): string => `<${id}>`;

/** Tokens written as `textOf` does; anything else byte by byte. */
export function tokenize(text: string): number[] {
  return text
    .split(/(<\d+>)/)
    .flatMap((part) => (/^<\d+>$/.test(part) ? [Number(part.slice(1, -1))] : [...Buffer.from(part)]));
}
