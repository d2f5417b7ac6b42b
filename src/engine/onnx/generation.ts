import type { FinishReason, Priority, QueueReason } from "../engine.ts";
import type { LoadedAdapter } from "./adapters.ts";
import type { PromptKv } from "./prompt-kv.ts";
import type { Batch, SampleMessage } from "./protocol.ts";
import { uniform } from "./rng.ts";
import { draw, type HeadRow } from "./sampler.ts";

/** One sample request inside the worker: a prompt that is computed once and n sequences that continue it. */
export interface Generation {
  readonly message: SampleMessage;
  readonly client: string;
  readonly priority: Priority;
  readonly adapter: LoadedAdapter | null;
  /** Tokens each sequence may draw. */
  readonly limit: number;
  /** Keys and values of the prompt, from when it is being computed until the last sample has started. */
  prompt: PromptKv | null;
  /** (hidden) of the prompt's last token; the first token of every sequence comes from it. */
  last: Float32Array | null;
  /** Sequences handed to a batch or finished so far. */
  started: number;
  /** Indices that have not finished. */
  readonly open: Set<number>;
  events: Batch;
  /** What the caller was last told about its place in the queue. */
  told: { position: number; reason: QueueReason } | null;
  readonly deliver: (events: Batch) => void;
  readonly settle: (error?: unknown) => void;
}

/** One continuation being decoded. */
export interface Sequence {
  readonly generation: Generation;
  readonly index: number;
  /** Tokens drawn so far. */
  drawn: number;
  /** The token to feed next. */
  last: number;
}

export function createGeneration(
  message: SampleMessage,
  adapter: LoadedAdapter | null,
  contextLength: number,
  callbacks: Pick<Generation, "deliver" | "settle">,
): Generation {
  return {
    message,
    client: message.client,
    priority: message.priority,
    adapter,
    limit: Math.min(message.params.maxTokens, contextLength - message.promptIds.length),
    prompt: null,
    last: null,
    started: 0,
    open: new Set(Array.from({ length: message.n }, (_, i) => i)),
    events: [],
    told: null,
    ...callbacks,
  };
}

/** The number in [0, 1) that decides a sequence's next token. */
export function nextUniform({ generation, index, drawn }: Sequence): number {
  return uniform(generation.message.seed, index, drawn);
}

/** Draws the sequence's next token from a row of the head; may finish it. Throws `engine_failed` on NaN. */
export function advance(sequence: Sequence, row: HeadRow): void {
  const { generation, index } = sequence;
  const { message } = generation;
  const { id, logprob, top } = draw(row, message, nextUniform(sequence));
  sequence.drawn++;
  sequence.last = id;
  generation.events.push({ type: "token", index, id, logprob, ...(top ? { top } : {}) });
  if (message.stopIds.includes(id)) finish(generation, index, "stop");
  else if (sequence.drawn >= generation.limit) finish(generation, index, "length");
}

export function finish(generation: Generation, index: number, reason: FinishReason): void {
  if (generation.open.delete(index)) generation.events.push({ type: "finish", index, reason });
}

export const isOpen = ({ generation, index }: Sequence): boolean => generation.open.has(index);

/** Hands over what has happened since the last time, and ends the request after its last sequence. */
export function flush(generation: Generation): void {
  if (generation.events.length > 0) {
    generation.deliver(generation.events);
    generation.events = [];
  }
  if (generation.open.size === 0) generation.settle();
}
