/**
 * The engine interface: the only door between the method and the mathematics (architecture: "four primitives on
 * token ids"). An engine speaks token ids; text, templates, HTTP and SQL stay outside.
 */
import type { LossName } from "../graph/losses.ts";
import type { AdapterFiles, Checkpoint } from "../model/checkpoint.ts";

/**
 * Of the weights. `q8` and `q4`: blocks of 128, the fastest; `q8_0` and `q4_0`: GGUF's own blocks of 32, so a GGUF file of
 * that type keeps its numbers.
 */
export type Precision = "fp32" | "q8" | "q4" | "q8_0" | "q4_0";

/** Somebody waits for an interactive request; a job is done beside it, with what it leaves. */
export type Priority = "interactive" | "job";

/** What every request says of itself. */
export interface RequestOptions {
  /** Who asks (a key, an address): the waiting requests of different clients take turns. */
  client?: string | undefined;
  /** Default: interactive. */
  priority?: Priority | undefined;
  adapter?: AdapterFiles | null;
  signal?: AbortSignal | undefined;
}

/** What a loaded model can do. Callers ask for what they need and get it, or `unsupported_by_backend`. */
export interface Capabilities {
  sample: boolean;
  logprobs: boolean;
  /** The temperatures at which `logprobs` is exact where not all are; at others it may answer with an `errorBound`. Null: all. */
  exact_temperatures: readonly number[] | null;
  /** The k most likely ids per position. */
  topk: boolean;
  /** Log-probs at ids the caller chooses (needed from the student by the `topk_tail` KL estimator). */
  at_ids: boolean;
  /** Whole next-token distributions, chunk by chunk (needed by the `full` KL estimator). */
  distributions: boolean;
  /** LoRA adapters chosen per request. */
  adapters: boolean;
  train: boolean;
  /** A sample is the same to the bit alone and beside others (engine.md 2.7); a self-test at load sets it. */
  batch_invariant: boolean;
}

export interface SamplingParams {
  /** 0 is greedy; otherwise logits are divided by it. */
  temperature: number;
  /** 1 keeps everything. */
  topP: number;
  /** 0 keeps everything. */
  topK: number;
  maxTokens: number;
}

export interface SampleRequest extends RequestOptions {
  /** (P) at least one id. */
  promptIds: Int32Array;
  /** Number of independent continuations of this prompt. */
  n: number;
  params: SamplingParams;
  /** Unsigned 32-bit (or any safe non-negative integer). Continuation i draws from the stream (seed, i). */
  seed: number;
  /** Sampling one of these ends the sequence; the id itself is emitted as its last token. */
  stopIds: readonly number[];
  /**
   * Called on the caller's thread after every token with all ids sampled so far; true ends that sequence with
   * reason "stop". Tokens the worker has already drawn beyond it are discarded, so the result does not depend on timing.
   */
  shouldStop?: (index: number, ids: readonly number[]) => boolean;
  /** How many of the most likely alternatives to report per token (0 = none). */
  topLogprobs?: number;
  /** Temperature of the reported log-probs; default: the sampling temperature, 1 when greedy. */
  logprobsTemperature?: number;
  /** False: nobody reads the log-probs, so an engine for which they cost something may report NaN. */
  logprobs?: boolean;
  /**
   * Texts that `shouldStop` is known to wait for. An engine that sees text may end a sequence by itself at the token that
   * completes one, and so draw nothing in vain; those that know ids only ignore them.
   */
  stopTexts?: readonly string[];
}

export interface TopLogprobs {
  ids: Int32Array;
  logprobs: Float32Array;
}

export type SampleEvent =
  /** It cannot start yet. Sent when it begins to wait and whenever its position changes. */
  | { type: "queued"; position: number; reason: QueueReason }
  /** Once, before the first token: the prompt is computed; this many of its tokens were in the prefix cache. */
  | { type: "prompt"; cachedTokens: number }
  /** `errorBound`: the log-probs are estimates, wrong by at most so many nats. */
  | { type: "token"; index: number; id: number; logprob: number; top?: TopLogprobs; errorBound?: number }
  /** At the end, from engines that do not know it earlier: replaces the number of the `prompt` event. */
  | { type: "usage"; cachedTokens: number }
  | { type: "finish"; index: number; reason: FinishReason };

/**
 * "turn": other requests came first or it is another client's turn; "slots": as many sequences as fit are being decoded;
 * "memory": no room for more keys and values; "client_limit": this client has its share of the slots; "backend": no server of
 * a remote pool answers at this moment.
 */
export type QueueReason = "turn" | "slots" | "memory" | "client_limit" | "backend";

/** "stop": a stop id or `shouldStop`; "length": `maxTokens` or the context is used up; "cancelled": `signal`. */
export type FinishReason = "stop" | "length" | "cancelled";

export interface LogprobsSequence {
  /** (T) token ids. */
  ids: Int32Array;
  /** First token whose log-prob is wanted, ≥ 1 (token 0 has none). Default 1. */
  from?: number;
  /** One past the last token wanted. Default T. */
  to?: number;
  /** (to − from, atWidth) ids chosen by the caller per position; answered in `at`. */
  at?: Int32Array;
  atWidth?: number;
  /**
   * Log-probs of another model for the same positions, as its `distributions` yields them (same `from`, `to` and
   * temperature). Answered in `kl`: KL(reference ‖ this model) in nats per position.
   */
  reference?: AsyncIterable<Float32Array>;
}

export interface LogprobsRequest extends RequestOptions {
  sequences: readonly LogprobsSequence[];
  /** Logits are divided by it before the softmax. */
  temperature: number;
  /** Also report the k most likely ids per position. */
  topK?: number;
  /** Also report the entropy (nats) of the distribution each token was drawn from. */
  entropy?: boolean;
  /** Also report each token's rank (1 = the most likely id). */
  rank?: boolean;
  /** No estimates: throws `unsupported_by_backend` instead. */
  exact?: boolean;
}

/** All arrays have N = to − from rows; row j speaks of token from + j. */
export interface LogprobsResult {
  from: number;
  to: number;
  /** Tokens of the sequence whose keys and values were in the prefix cache. */
  cachedTokens: number;
  /** (N) log p(ids[from + j] | ids[< from + j]) */
  logprobs: Float32Array;
  /** (N) */
  entropy?: Float32Array;
  /** (N) */
  rank?: Int32Array;
  /** (N, topK) most likely first. */
  topIds?: Int32Array;
  topLogprobs?: Float32Array;
  /** (N, atWidth) */
  at?: Float32Array;
  /** (N) */
  kl?: Float32Array;
  /** (N) where the engine had to estimate: each log-prob of the row is wrong by at most so many nats. */
  errorBound?: Float32Array;
}

export interface DistributionsRequest extends RequestOptions {
  ids: Int32Array;
  from: number;
  to: number;
  temperature: number;
}

/** Rows per chunk of `distributions` (the last chunk may be shorter). 16 rows × 152 k ids × 4 bytes = 10 MB in flight. */
export const DISTRIBUTION_ROWS = 16;

/** One sequence to learn from; arrays are as long as `ids`, and entry t speaks of token t. */
export interface TrainingSequence {
  /** (T) */
  ids: Int32Array;
  /** What each token counts, ≥ 0; entry 0 is 0, for nothing predicts the first token. */
  weights: Float32Array;
  advantages?: Float32Array;
  /** Log-probs of the reference model at the temperature of the loss. */
  reference?: Float32Array;
  /** Log-probs of the policy that sampled. */
  old?: Float32Array;
}

export interface LossConfig {
  loss: LossName;
  /** Logits are divided by it. Default 1. */
  temperature?: number;
  /** Coefficient of the KL term against `reference`. Default 0. */
  beta?: number;
  /** Of ppo: the ratio is kept in 1 − clipLow … 1 + clipHigh. */
  clipLow?: number;
  clipHigh?: number;
  /** Report log-probs of tokens that carry no weight too, which costs a head product each. */
  everyToken?: boolean;
}

export interface TrainingResult {
  loss: number;
  /** Per sequence (T), at the temperature of the loss; NaN where none was computed. */
  logprobs: Float32Array[];
}

/** A new adapter. */
export interface LoraOptions {
  rank: number;
  /** The update is multiplied by alpha / rank, or by alpha / √rank with `rsLora` (arXiv 2312.03732). */
  alpha: number;
  rsLora: boolean;
  /** `q_proj k_proj v_proj o_proj gate_proj up_proj down_proj` */
  targets: readonly string[];
  seed: number;
}

/** AdamW with decoupled weight decay. */
export interface OptimStep {
  learningRate: number;
  betas: readonly [number, number];
  eps: number;
  weightDecay: number;
  /** Largest norm of all gradients together; null: as they are. */
  clip: number | null;
}

/** What is trained: a new adapter, one that exists, or every parameter. */
export type Trainable =
  | { kind: "lora"; lora: LoraOptions }
  | { kind: "adapter"; adapter: AdapterFiles }
  | { kind: "full" };

export interface TrainOptions {
  trainable: Trainable;
  threads: number;
  device: string;
  /** Bytes that the values of one micro-batch may take; default: a share of the machine's memory. */
  batchBytes?: number;
}

/**
 * Weights that learn. Calls are done one after the other. Gradients add up until `optimStep` uses them; a `forwardBackward`
 * that fails or is cancelled throws away those that were there, since part of its own are among them.
 */
export interface TrainingModel {
  readonly trainableParameters: number;
  /** Throws `empty_loss`, `loss_not_finite`, `out_of_memory`, `cancelled`. */
  forwardBackward(request: TrainingRequest): Promise<TrainingResult>;
  /** The same numbers without gradients. */
  forward(request: TrainingRequest): Promise<TrainingResult>;
  /** `gradNorm`: before clipping; `step` counts from 1. */
  optimStep(options: OptimStep): Promise<{ step: number; gradNorm: number }>;
  /**
   * Writes a directory that can be served: an adapter in PEFT's layout, or a whole checkpoint. With `state`, what training
   * goes on from lies beside it. The directory must not exist; it appears complete or not at all.
   */
  save(directory: string, options: { state: boolean }): Promise<void>;
  /** Takes up what `save` wrote for the same `trainable`, at its step; without a state it is a new training of these weights. */
  restore(directory: string): Promise<{ step: number }>;
  close(): Promise<void>;
}

export interface TrainingRequest {
  sequences: readonly TrainingSequence[];
  config: LossConfig;
  signal?: AbortSignal | undefined;
}

/** One loaded base model. All methods may be called concurrently; the engine decides how work shares the machine. */
export interface EngineModel {
  readonly capabilities: Capabilities;
  /** Null: the weights are a remote server's own affair. */
  readonly precision: Precision | null;
  readonly vocabSize: number;
  /** Longest sequence (prompt + completion) this model was opened for. */
  readonly contextLength: number;
  /** Bytes attributable to this model (weights as packed, caches), for placement. */
  memoryBytes(): number;
  /** The weights among them. Models of the same checkpoint and precision map the same pages (`key` names them), which count once. */
  readonly weights: { key: string; bytes: number };
  /**
   * Yields tokens of all n sequences as they are drawn, then one finish event per index. Ends after the nth finish.
   * Throws `queue_full` (429) when this client has enough waiting, `overloaded` (503) when everybody together has.
   */
  sample(request: SampleRequest): AsyncIterable<SampleEvent>;
  /** One result per sequence, in order. Throws `queue_full` and `overloaded` as `sample` does. */
  logprobs(request: LogprobsRequest): Promise<LogprobsResult[]>;
  /** Chunks (≤ DISTRIBUTION_ROWS, vocabSize) of log-probs for tokens from…to−1; pulls compute, so a slow reader holds nothing. */
  distributions(request: DistributionsRequest): AsyncIterable<Float32Array>;
  /** How busy it is, for metrics. */
  load(): ModelLoad;
  close(): Promise<void>;
}

export interface ModelLoad {
  /** Sequences being decoded. */
  active: number;
  /** Sequences waiting to be decoded. */
  waiting: number;
  /** Texts being scored and waiting for it. */
  scoring: number;
  /** Prompt tokens so far that had to be computed, and that the prefix cache had. */
  computedTokens: number;
  cachedTokens: number;
  /** Bytes of the prefix cache. */
  prefixBytes: number;
}

export interface OpenOptions {
  precision: Precision;
  /** Longest sequence to serve; it may go beyond the positions the checkpoint was made for. */
  contextLength: number;
  /** Compute threads for this model. */
  threads: number;
  /** `cpu`, `cuda:0`, `webgpu`. */
  device: string;
  /** Weights that change every few seconds are not packed into the cache for later: it would fill with them. */
  transient?: boolean;
}

export interface Engine {
  readonly name: string;
  /** What its models can do; a loaded model says it exactly (`batch_invariant` is false until the self-test ran). */
  readonly capabilities: Capabilities;
  /**
   * Whether models can be opened like this here: precision known, device present. Cheap after the first call; nothing is
   * loaded. Throws `unsupported_by_backend`.
   */
  check(options: Pick<OpenOptions, "precision" | "device">): Promise<void>;
  /** Loads weights and builds sessions. Throws `engine_failed`, `unsupported_by_backend`, `out_of_memory`. */
  open(checkpoint: Checkpoint, options: OpenOptions): Promise<EngineModel>;
  /** Makes weights learn. Throws as `open` does, and `invalid_value` for what cannot be trained. */
  train(checkpoint: Checkpoint, options: TrainOptions): Promise<TrainingModel>;
}

/** A model that a server of somebody else's has loaded. */
export interface RemoteOptions {
  /** Replicas of one model behind one name: `http://host:port/v1`. */
  baseUrls: readonly string[];
  /** Under which the servers know it. */
  name: string;
  /** Sent as `Authorization: Bearer`. */
  key: string | undefined;
  /** The served weights have their logits divided by it already (`model/temper.ts`); 1 for ordinary ones. */
  tempered: number;
  /** As the tokenizer and its config know them; the server may say more exactly. */
  vocabSize: number;
  eosIds: readonly number[];
  /** Null: what the server says. */
  contextLength: number | null;
  /** (≥ 2) A few ids of ordinary text, for probes. */
  probeIds: Int32Array;
}

export interface RemoteModel extends EngineModel {
  /** Under which the servers know it. */
  readonly name: string;
  /** How its servers are; `active`: sequences and texts under way there. "paused": it asked to be left alone for a while. */
  replicas(): { where: string; state: "up" | "paused" | "open"; active: number }[];
  /** Finds out anew what its servers can do. Throws `backend_unavailable` where none of them answers as it should. */
  probe(): Promise<void>;
  /** Ids that the server's own tokenizer makes of a text, special tokens neither added nor parsed where it can be told so; null: it cannot be asked. */
  serverTokens(text: string, signal?: AbortSignal): Promise<readonly number[] | null>;
}

/** Reaches servers instead of loading weights: what it connects to is an `EngineModel` like any other. */
export interface RemoteEngine {
  readonly name: string;
  /** Whether these addresses may be used. Nothing is asked of them. Throws `model_source_not_allowed`. */
  check(baseUrls: readonly string[]): void;
  /**
   * Probes every replica and publishes what all of them can do. Throws `backend_refused`, `backend_failed`,
   * `backend_unavailable` with the server's own words, `invalid_value` where `contextLength` is needed.
   */
  connect(options: RemoteOptions, signal?: AbortSignal): Promise<RemoteModel>;
}
