import type { LoadedAdapter } from "./adapters.ts";
import { advance, type Generation, isOpen, type Sequence } from "./generation.ts";
import { addRow, createCache, type KvCache, removeRow } from "./kv-cache.ts";
import { headRows } from "./limits.ts";
import { type HeadRow, headTemperature, needsLogits } from "./sampler.ts";
import type { Sessions } from "./sessions.ts";

/** Sequences that are decoded together: same weights, same adapter, one row of the cache each. */
export interface DecodeBatch {
  readonly adapter: LoadedAdapter | null;
  readonly cache: KvCache;
  readonly sequences: Sequence[];
}

export function createBatch(sessions: Sessions, adapter: LoadedAdapter | null): DecodeBatch {
  return { adapter, cache: createCache(sessions.config), sequences: [] };
}

export function join(batch: DecodeBatch, sequence: Sequence, prompt: KvCache): void {
  addRow(batch.cache, prompt, 0);
  batch.sequences.push(sequence);
}

/** Takes out rows whose sequence has finished or was dropped. */
export function compact(batch: DecodeBatch): void {
  const { sequences, cache } = batch;
  for (let row = sequences.length - 1; row >= 0; row--) {
    if (isOpen(sequences[row]!)) continue;
    removeRow(cache, row);
    const moved = sequences.pop()!;
    if (row < sequences.length) sequences[row] = moved;
  }
}

/** One token for every sequence. A sequence whose output is not a number fails its request through `failed`, not the batch. */
export function step(
  sessions: Sessions,
  batch: DecodeBatch,
  failed: (generation: Generation, error: unknown) => void,
): void {
  const { sequences } = batch;
  const ids = Int32Array.from(sequences, ({ last }) => last);
  const hidden = sessions.forward(batch.cache, ids, batch.adapter, true);
  for (const [row, headRow] of predict(
    sessions,
    hidden,
    sequences.map(({ generation }) => generation),
  ).entries()) {
    const sequence = sequences[row]!;
    if (!isOpen(sequence)) continue;
    try {
      advance(sequence, headRow);
    } catch (error) {
      failed(sequence.generation, error);
    }
  }
  compact(batch);
}

/** Next-token distributions for hidden rows (N, H), each at its own request's temperature. */
export function predict(sessions: Sessions, hidden: Float32Array, owners: readonly Generation[]): HeadRow[] {
  const { hiddenSize, vocabSize } = sessions.config;
  const limit = headRows(vocabSize);
  const rows: HeadRow[] = [];
  for (let start = 0; start < owners.length; start += limit) {
    const part = owners.slice(start, start + limit);
    const inverseTemperature = Float32Array.from(part, ({ message }) => 1 / headTemperature(message));
    const input = hidden.subarray(start * hiddenSize, (start + part.length) * hiddenSize);
    const withLogits = part.some(({ message }) => needsLogits(message));
    const out = sessions.head(input, { inverseTemperature }, withLogits ? ["probs", "logits"] : ["probs"]);
    for (const [i, { message }] of part.entries()) {
      const of = (matrix: Float32Array): Float32Array => matrix.subarray(i * vocabSize, (i + 1) * vocabSize);
      rows.push(needsLogits(message) ? { probs: of(out.probs), logits: of(out.logits) } : { probs: of(out.probs) });
    }
  }
  return rows;
}
