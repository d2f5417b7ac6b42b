import type { PromptRequest } from "./text.ts";
import type { TokenBytes } from "./token-bytes.ts";

/** What crosses between `client.ts` and `worker.ts`. */

export interface OpenCall {
  directory: string;
  /** Tokenizer hashes whose bytes the caller has. */
  known: readonly string[];
}

export interface OpenReply {
  identity: string;
  tokenizerHash: string;
  hasChatTemplate: boolean;
  eosIds: readonly number[];
  stripsSpace: boolean;
  bytes: TokenBytes | null;
}

/** Enough to find the model again in a worker that never saw it. */
export interface ModelReference {
  identity: string;
  directory: string;
}

export interface EncodeCall {
  model: ModelReference;
  text: string;
  parseSpecial: boolean;
  addSpecial: boolean;
}

export interface PromptCall {
  model: ModelReference;
  request: PromptRequest;
}
