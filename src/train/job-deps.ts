/** What a training job needs from the rest of the program. */
import type { Engine, EngineModel, OpenOptions } from "../engine/engine.ts";
import type { JobQueue } from "../jobs/queue.ts";
import type { CheckpointRecord } from "../jobs/records.ts";
import type { AdapterFiles, Checkpoint } from "../model/checkpoint.ts";
import type { FormatSpec } from "../rlt/formats.ts";
import type { TextModel } from "../text/text.ts";
import type { RolloutPrecision, TrainingConfig } from "./config.ts";
import type { Clock } from "./run.ts";

/** A registered model, held in memory until `release`. */
export interface ServedModel {
  id: string;
  version: number;
  adapter: AdapterFiles | null;
  engine: EngineModel;
  text: TextModel;
  format: FormatSpec;
  contextLength: number;
  eosIds: readonly number[];
  release(): void;
}

/** One with its files, so that it can be trained. */
export interface ModelInUse extends ServedModel {
  checkpoint: Checkpoint;
  /** As `engine` was opened: in the precision of training. */
  options: OpenOptions;
  /** What draws explanations: `engine`, or the same weights in a faster precision. */
  sampler: EngineModel;
}

export interface TrainingRow {
  question: string;
  solution: string;
  reasoning_trace?: string | undefined;
  id?: string | undefined;
  metadata?: Readonly<Record<string, unknown>> | undefined;
}

export interface TrainingDataset {
  contentHash: string;
  count: number;
  row(index: number): Promise<TrainingRow>;
  split(heldOut: number, seed: number): Promise<{ train: number[]; heldOut: number[] }>;
}

export interface Published {
  role: "teacher" | "student";
  id: string;
  version: number;
}

export interface TrainingDeps {
  engine: Pick<Engine, "train" | "open">;
  use(
    model: string,
    how: { role: "teacher" | "student"; rollouts: RolloutPrecision; signal: AbortSignal },
  ): Promise<ModelInUse>;
  /** For scoring: may be a server of somebody else's. */
  serve(student: string, signal: AbortSignal): Promise<ServedModel>;
  dataset(id: string): Promise<TrainingDataset>;
  queue: Pick<
    JobQueue,
    "lastCheckpoint" | "bestCheckpoint" | "listCheckpoints" | "removeCheckpoint" | "findCheckpoint" | "needing"
  >;
  /** Makes a checkpoint the newest version of the model that was trained. */
  publish(request: { config: TrainingConfig; checkpoint: CheckpointRecord }): Promise<Published>;
  /** Folder of checkpoints and of what jobs leave behind. */
  artifacts: string;
  scratch: string;
  allowedHosts: readonly string[];
  fetch: typeof fetch;
  clock: Clock;
}
