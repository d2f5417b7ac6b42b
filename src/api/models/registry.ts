/**
 * How services reach a registered model: by name, loaded on first use, held while in use so that the memory budget
 * never unloads it under their feet. Implemented by `api/models/service.ts`.
 */
import type { EngineModel, Precision } from "../../engine/engine.ts";
import type { AdapterFiles } from "../../model/checkpoint.ts";
import type { FormatSpec } from "../../rlt/formats.ts";
import type { TextModel } from "../../text/text.ts";
import type { Needs } from "./needs.ts";

export type Role = "teacher" | "student";

/** A registered model, loaded and held. Call `release()` exactly once when done (try/finally). */
export interface HeldModel {
  /** Slug without version. */
  id: string;
  version: number;
  /** Where `id@ckpt_…` was named; the version is then the one that it was trained from. */
  checkpoint?: string | undefined;
  engine: EngineModel;
  text: TextModel;
  /** The adapter of this version; hand it to every engine call. */
  adapter: AdapterFiles | null;
  /** How it is prompted (teacher) or answers (student). */
  format: FormatSpec;
  contextLength: number;
  /** Ids that end a turn: the checkpoint's and the tokenizer's together. */
  eosIds: readonly number[];
  release(): void;
}

/** Just the tokenizer of a registered model: enough for /v1/tokenize, no weights are loaded. */
export interface ModelText {
  id: string;
  version: number;
  checkpoint?: string | undefined;
  text: TextModel;
  format: FormatSpec;
  /** Null: of a remote model whose server does not answer, and that was registered without. */
  contextLength: number | null;
  /** Rows of the model's embedding, where known without loading it: ids up to it are valid though they may have no text. */
  vocabSize?: number;
}

export interface ModelSummary {
  id: string;
  created_at: number;
  /** Null: its files have not been read, or its server not been reached. */
  context_length: number | null;
}

export interface RegistryHoldOptions {
  role?: Role;
  /** Field of the request that names the model, for errors. */
  param?: string;
  signal?: AbortSignal | undefined;
  /** A model that the same request holds already: if both never fit into memory, that is said at once. */
  beside?: HeldModel | undefined;
  /** Instead of the one it was registered with. */
  precision?: Precision;
  /** Throws `unsupported_by_backend`, naming a registered model that could, where it cannot do all of this. */
  needs?: Needs;
}

export interface ModelRegistry {
  /**
   * `name` is an id, `id@3` or `id@latest`. Throws `model_not_found` (404; also when the role does not match),
   * `model_loading` (503 + Retry-After), `unsupported_by_backend`, or the error that made the model fail.
   */
  hold(name: string, options?: RegistryHoldOptions): Promise<HeldModel>;
  /** Needs no server: while that of a remote model does not answer, `needs` are not judged and what only it knows is left out. */
  text(name: string, options?: { role?: Role; param?: string; needs?: Needs }): Promise<ModelText>;
  list(): Promise<ModelSummary[]>;
}
