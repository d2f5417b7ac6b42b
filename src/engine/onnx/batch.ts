import type { LoadedAdapter } from "./adapters.ts";
import { advance, type Generation, isOpen, nextUniform, type Sequence } from "./generation.ts";
import { addEmptyRow, addPromptRow, createRows, type KvRows, removeRow, roundCapacity, rowsBytes } from "./kv-rows.ts";
import { roomClass } from "./limits.ts";
import { predict } from "./predict.ts";
import type { PromptKv } from "./prompt-kv.ts";
import type { Sessions } from "./sessions.ts";

/** Sequences that are decoded in one run: same weights, same adapter. */
export interface DecodeBatch {
  readonly adapter: LoadedAdapter | null;
  /** The group whose samples these are, all on one prompt; null: any requests, each row with a copy of its own. */
  readonly group: Generation | null;
  /** Lengths of what is decoded together; see `roomClass`. */
  readonly room: string;
  readonly prompt: PromptKv | KvRows;
  /** Decoded positions, a row per sequence. */
  readonly past: KvRows;
  readonly sequences: Sequence[];
}

export function createBatch(sessions: Sessions, generation: Generation, group: Generation | null): DecodeBatch {
  const rows = (): KvRows => createRows(sessions.config);
  const { adapter } = generation;
  return { adapter, group, room: roomOf(generation), prompt: group?.prompt ?? rows(), past: rows(), sequences: [] };
}

const roomOf = ({ message, limit }: Generation): string => roomClass(message.promptIds.length, limit);

/** Whether samples of this request belong into this run; `group`: they would have one of their own. */
export function belongs(batch: DecodeBatch, generation: Generation, group: Generation | null): boolean {
  if (batch.group) return batch.group === generation;
  return !group && batch.adapter === generation.adapter && batch.room === roomOf(generation);
}

export function join(batch: DecodeBatch, sequence: Sequence): void {
  const { prompt } = sequence.generation;
  if (prompt && "rows" in batch.prompt) addPromptRow(batch.prompt, prompt);
  addEmptyRow(batch.past);
  batch.sequences.push(sequence);
}

/** Takes out rows whose sequence has finished or was dropped. */
export function compact(batch: DecodeBatch): void {
  const { sequences, prompt, past } = batch;
  for (let row = sequences.length - 1; row >= 0; row--) {
    if (isOpen(sequences[row]!)) continue;
    if ("rows" in prompt) removeRow(prompt, row);
    removeRow(past, row);
    const moved = sequences.pop()!;
    if (row < sequences.length) sequences[row] = moved;
  }
}

/** What a batch holds beside the prompts of its groups. */
export function batchBytes({ prompt, past }: DecodeBatch): number {
  return rowsBytes(past) + ("rows" in prompt ? rowsBytes(prompt) : 0);
}

/** Positions that these sequences will need room for by their end, when they are decoded in one run. */
export function promisedPositions(generations: readonly Generation[], sharedPrompt: boolean): number {
  const longest = (of: (generation: Generation) => number): number =>
    roundCapacity(generations.reduce((most, generation) => Math.max(most, of(generation)), 0));
  const decoded = generations.length * longest(({ limit }) => limit);
  const prompt = longest(({ message }) => message.promptIds.length);
  return decoded + (sharedPrompt ? prompt : generations.length * prompt);
}

/** The first token of sequences that start now, drawn from what their prompt ends with. */
export function begin(sessions: Sessions, sequences: readonly Sequence[], onFailure: OnFailure): void {
  const { hiddenSize } = sessions.config;
  const hidden = new Float32Array(sequences.length * hiddenSize);
  for (const [row, { generation }] of sequences.entries()) hidden.set(generation.last!, row * hiddenSize);
  drawNext(sessions, hidden, sequences, onFailure);
}

/** One token for every sequence. */
export function step(sessions: Sessions, batch: DecodeBatch, onFailure: OnFailure): void {
  const ids = Int32Array.from(batch.sequences, ({ last }) => last);
  drawNext(sessions, sessions.decode(batch, ids, batch.adapter), batch.sequences, onFailure);
  compact(batch);
}

/** A sequence whose output is not a number fails its request, not the batch. */
export type OnFailure = (generation: Generation, error: unknown) => void;

function drawNext(
  sessions: Sessions,
  hidden: Float32Array,
  sequences: readonly Sequence[],
  onFailure: OnFailure,
): void {
  const requests = sequences.map((sequence) => ({
    options: sequence.generation.message,
    uniform: nextUniform(sequence),
  }));
  for (const [row, headRow] of predict(sessions, hidden, requests).entries()) {
    const sequence = sequences[row]!;
    if (!isOpen(sequence)) continue;
    try {
      advance(sequence, headRow);
    } catch (error) {
      onFailure(sequence.generation, error);
    }
  }
}
