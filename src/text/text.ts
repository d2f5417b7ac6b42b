/**
 * The text interface. Implemented by `text/client.ts`, a proxy of the text worker thread: long texts block for seconds,
 * so the HTTP thread never tokenises. Only what is O(1) per token (bytes of an id) lives on the caller's side.
 */

export interface ChatMessage {
  role: string;
  content: string;
}

/** A stretch of assistant text. A named field gets its byte range back; contents never parse as special tokens. */
export interface TextPart {
  text: string;
  field?: string;
}

export interface PromptRequest {
  messages: readonly ChatMessage[];
  /** Raw text that follows the generation prompt (the beginning, or all, of the assistant's turn). */
  assistant?: readonly TextPart[];
  /** Append the template's own end of turn after the assistant text. */
  endOfTurn?: boolean;
  /** Used when the checkpoint brings no template (a custom format may carry one). */
  chatTemplate?: string;
}

export interface ByteRange {
  start: number;
  end: number;
}

export interface Encoded {
  /** (T) */
  ids: Int32Array;
  /** (T) end of each token in the normalised UTF-8 bytes of the whole text; token i covers ends[i−1]…ends[i]. */
  ends: Int32Array;
  /** The whole text as the model sees it, special tokens spelled out. */
  text: string;
  /** Byte ranges of the named fields in the normalised bytes of `text`. */
  fields: Readonly<Record<string, ByteRange>>;
}

export interface TextModel {
  /** sha256 of what decides ids: two models with the same hash give the same ids. `sha256:…` */
  readonly tokenizerHash: string;
  /** Number of ids the tokenizer knows (a model's vocabulary may be padded beyond it). */
  readonly size: number;
  readonly hasChatTemplate: boolean;
  /** Ids the tokenizer itself names as end of turn / text. */
  readonly eosIds: readonly number[];
  /** Encoding puts a space in front of a text, which decode() drops again (SentencePiece). */
  readonly stripsSpace?: boolean;
  /** Bytes an id stands for; empty for special tokens (unless `special`) and for ids beyond the tokenizer. O(1), any thread. */
  bytesOf(id: number, special?: boolean): Uint8Array;
  /** A raw prompt: special tokens are parsed, `addSpecial` adds BOS and the like as the tokenizer's post-processor does. */
  encode(text: string, options: { parseSpecial: boolean; addSpecial: boolean }): Promise<Encoded>;
  /** A chat, optionally with the beginning of the assistant's turn. Special tokens in contents are text. */
  encodePrompt(request: PromptRequest): Promise<Encoded>;
  /** Text of a whole sequence, special tokens dropped unless `special`. Incomplete characters become U+FFFD. */
  decode(ids: Int32Array, options?: { special?: boolean }): Promise<string>;
}

export interface TextService {
  /** Loads (or shares) the tokenizer of a checkpoint directory. Throws `invalid_tokenizer`. */
  open(directory: string): Promise<TextModel>;
  close(): Promise<void>;
}
