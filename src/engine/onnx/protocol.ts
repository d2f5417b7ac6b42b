import type { AdapterFiles, Checkpoint } from "../../model/checkpoint.ts";
import type { Capabilities, ModelLoad, OpenOptions, Priority, SampleEvent, SamplingParams } from "../engine.ts";
import type { Member } from "./turns.ts";

/** What crosses between the proxy (`engine.ts`, caller's thread) and the worker: the engine's requests as plain data. */

/** Worker handlers: open → Opened; sample streams SampleEvent[]; logprobs → LogprobsResult[]; distributions streams Float32Array. */
export interface OpenMessage {
  checkpoint: Checkpoint;
  options: OpenOptions;
  cacheDir: string;
  /** Shared flags of exit-guard.ts. */
  exitFlags: Int32Array;
  /** This thread's place in turns.ts. */
  member: Member;
}

export interface Opened {
  capabilities: Capabilities;
  weights: { key: string; bytes: number };
}

/** What every request says of itself. */
interface Asked {
  client: string;
  priority: Priority;
  adapter: AdapterFiles | null;
}

export interface SampleMessage extends Asked {
  /** Names this request in `drop`. */
  key: number;
  promptIds: Int32Array;
  n: number;
  params: SamplingParams;
  seed: number;
  stopIds: readonly number[];
  topLogprobs: number;
  logprobsTemperature: number;
}

/** The caller's `shouldStop` ended this sequence. */
export interface DropMessage {
  key: number;
  index: number;
}

export interface SequenceMessage {
  ids: Int32Array;
  from: number;
  to: number;
  at?: Int32Array;
  atWidth: number;
  /** The worker asks for chunks with `reference` (proxy handler), answered with log-probs or null at the end. */
  hasReference: boolean;
}

export interface LogprobsMessage extends Asked {
  key: number;
  sequences: readonly SequenceMessage[];
  temperature: number;
  topK: number;
  entropy: boolean;
  rank: boolean;
}

export interface ReferenceMessage {
  key: number;
  sequence: number;
}

export interface DistributionsMessage extends Asked {
  ids: Int32Array;
  from: number;
  to: number;
  temperature: number;
}

/** Sent by the worker to the proxy handler `state` when it changes. */
export interface WorkerState extends ModelLoad {
  /** Caches and adapters. */
  bytes: number;
}

export type Batch = SampleEvent[];
