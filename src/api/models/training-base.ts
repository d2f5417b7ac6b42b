/** What training begins with: a registered model's version, or a model that nobody registered, read by the same code. */
import type { OpenOptions } from "../../engine/engine.ts";
import type { AdapterFiles, Checkpoint } from "../../model/checkpoint.ts";
import type { TextModel } from "../../text/text.ts";
import type { VersionSource } from "./preparation.ts";
import type { Version } from "./version.ts";

export interface TrainingBase {
  /** Null: given by its source. */
  registered: { id: string; version: number } | null;
  checkpoint: Checkpoint;
  text: TextModel;
  /** The one that was asked for, otherwise that of the registered version. */
  adapter: AdapterFiles | null;
  /** As it was named. */
  adapterSource: string | null;
  /** How it is served while it is trained. */
  serving: OpenOptions;
  /** Ids that end a turn: the checkpoint's and the tokenizer's together. */
  eosIds: readonly number[];
}

export interface TrainingBases {
  /**
   * `name`: `id`, `id@3`, or a source as in a registration. Throws `model_not_found`, `unsupported_by_backend` for a remote
   * model, `model_loading` while it is downloaded, and what is wrong with its files.
   */
  trainingBase(name: string, options: { adapter: string | null; signal: AbortSignal }): Promise<TrainingBase>;
}

/** What may be an id, with or without a version; anything else is a source. */
export const REGISTERED_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(@[^/]*)?$/;

/** A source as if it were registered, at the precision of training. */
export function unregistered(source: string, adapter: string | null): Version {
  const from: VersionSource = {
    source,
    adapter,
    credential: null,
    tokenizer: null,
    tempered: null,
    contextLength: null,
  };
  return {
    ...from,
    id: source,
    version: 1,
    precision: "fp32",
    device: "auto",
    weightsHash: null,
    adapterHash: null,
    tokenizerHash: null,
    formats: {},
  };
}
