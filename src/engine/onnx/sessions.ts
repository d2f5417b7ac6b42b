import { HEAD_PARTS, type HeadPart, headGraph } from "../../graph/head.ts";
import type { GraphData } from "../../graph/ir.ts";
import { encodeModel } from "../../graph/proto/onnx.ts";
import { decodeGraph, type TrunkOptions as GraphOptions, maskWindows, prefillGraph } from "../../graph/trunk.ts";
import type { Checkpoint, ModelConfig } from "../../model/checkpoint.ts";
import type { LoadedAdapter } from "./adapters.ts";
import { append, type KvRows } from "./kv-rows.ts";
import { decodeMask, prefillMask } from "./mask.ts";
import type { PackedWeights } from "./packed-weights.ts";
import type { PromptKv } from "./prompt-kv.ts";
import { createRopeTable } from "./rope.ts";
import { createSession, type Session, type SessionOptions, type Tensor, tensor } from "./runtime.ts";

/** The sessions of a loaded model, as functions over arrays. Everything here blocks the calling thread. */
export interface Sessions {
  readonly config: ModelConfig;
  /** Products need an even number of rows, or the last one would depend on how many there are (engine.md 2.7). */
  readonly evenRows: boolean;
  /** Runs B sequences of new tokens after the same past (or none). Shorter ones are padded to the longest. */
  prefill(sequences: readonly Int32Array[], past: PromptKv | null, options: TrunkOptions): Prefilled;
  /** Runs one new token of every row and appends its keys and values. Returns hidden states (B, hidden). */
  decode(rows: DecodeRows, ids: Int32Array, adapter: LoadedAdapter | null): Float32Array;
  head<F extends HeadOutput>(rows: Float32Array, inputs: HeadInputs, fetches: readonly F[]): HeadResult<F>;
  dispose(): void;
}

export interface TrunkOptions {
  adapter: LoadedAdapter | null;
  /** Whether hidden states are wanted. */
  hidden: boolean;
}

export interface Prefilled {
  /** Positions per sequence in the arrays below, padding included. */
  stride: number;
  /** (B, stride, hidden); empty when not wanted. */
  hidden: Float32Array;
  /** Per layer (B, stride, kvHeads, D) */
  keys: Float32Array[];
  values: Float32Array[];
}

export interface DecodeRows {
  /** The prompt that all rows share, or each row's own. */
  prompt: PromptKv | KvRows;
  /** Decoded positions. */
  past: KvRows;
}

export interface HeadInputs {
  /** (N) multiplies the logits. */
  inverseTemperature: Float32Array;
  /** (N) in [0, 1), for draws. */
  uniform?: Float32Array;
  /** (N) */
  targets?: Int32Array;
  /** (N, K) */
  at?: Int32Array;
  /** Number of most likely ids for `top_logprobs`, `top_ids`. */
  k?: number;
  /** (N, V) log-probs */
  reference?: Float32Array;
}

/** Output of the head → the parts of it that must compute. */
const NEEDS = {
  logits: [],
  probs: ["probs"],
  logprobs: ["logprobs"],
  target: ["logprobs", "target"],
  entropy: ["logprobs", "entropy"],
  rank: ["rank"],
  at_logprobs: ["logprobs", "at"],
  kl: ["logprobs", "kl"],
  top_logprobs: ["logprobs", "top"],
  top_ids: ["logprobs", "top"],
  best_id: ["best"],
  best_prob: ["best"],
  draw_block: ["draw"],
  draw_probs: ["draw"],
  draw_before: ["draw"],
  draw_at: ["draw"],
  draw_total: ["draw"],
} as const satisfies Record<string, readonly HeadPart[]>;

export type HeadOutput = keyof typeof NEEDS;
type IdOutput = "top_ids" | "best_id" | "draw_block";
export type HeadResult<F extends HeadOutput> = { [K in F]: K extends IdOutput ? BigInt64Array : Float32Array };

const TRUNKS = {
  prefill: prefillGraph,
  decode: (checkpoint, options) => decodeGraph(checkpoint, { ...options, sharedPrompt: false }),
  decode_shared: (checkpoint, options) => decodeGraph(checkpoint, { ...options, sharedPrompt: true }),
} satisfies Record<string, (checkpoint: Checkpoint, options: GraphOptions & { padRows: boolean }) => GraphData>;

export function openSessions(
  checkpoint: Checkpoint,
  packed: PackedWeights | null,
  options: SessionOptions,
  evenRows: boolean,
): Sessions {
  const { config } = checkpoint;
  const matrices = packed?.matrices ?? null;
  const head = createSession(encodeModel(headGraph(checkpoint, matrices)), options);
  const trunks = new Map<string, Session>();
  const ropes = config.ropes.map(createRopeTable);
  const windows = maskWindows(config);
  const layers = config.layerKinds.map((_, layer) => layer);
  const newRows = layers.flatMap((layer) => [`new_k.${layer}`, `new_v.${layer}`]);
  // Users without adapters pay nothing for them. Sessions are opened when first needed; packed weights are mapped, so
  // all of them read the same pages.
  const trunk = (kind: keyof typeof TRUNKS, lora: boolean): Session => {
    const key = `${kind} ${lora}`;
    const known =
      trunks.get(key) ??
      createSession(
        encodeModel(TRUNKS[kind](checkpoint, { lora, packed: matrices, padRows: evenRows || lora })),
        options,
      );
    trunks.set(key, known);
    return known;
  };
  trunk("prefill", false);
  trunk("decode", false);

  function rotary(feeds: Record<string, Tensor>, positions: number): void {
    for (const [r, table] of ropes.entries()) {
      const { cos, sin, rows } = table.upTo(positions);
      feeds[`cos.${r}`] = tensor("float32", [rows, config.headDim / 2], cos);
      feeds[`sin.${r}`] = tensor("float32", [rows, config.headDim / 2], sin);
    }
  }

  function run(
    kind: keyof typeof TRUNKS,
    feeds: Record<string, Tensor>,
    { adapter, hidden }: TrunkOptions,
  ): Pick<Prefilled, "hidden" | "keys" | "values"> {
    const session = trunk(kind, adapter !== null);
    const all = adapter ? { ...feeds, ...adapter.feeds } : feeds;
    const out = session.run(all, hidden ? [...newRows, "hidden"] : newRows) as Record<string, Float32Array>;
    return {
      hidden: out.hidden ?? new Float32Array(0),
      keys: layers.map((layer) => out[`new_k.${layer}`]!),
      values: layers.map((layer) => out[`new_v.${layer}`]!),
    };
  }

  function prefill(sequences: readonly Int32Array[], past: PromptKv | null, how: TrunkOptions): Prefilled {
    const B = sequences.length;
    const longest = Math.max(...sequences.map((ids) => ids.length));
    // Never one row alone, nor an odd number of them: padding keeps every row's numbers. Nothing looks at later positions.
    const S = longest + (longest % 2);
    const P = past?.length ?? 0;
    const ids = new Int32Array(B * S);
    const positions = new BigInt64Array(B * S);
    for (const [b, sequence] of sequences.entries()) {
      // Padded with itself: another token's keys might not be finite, and 0 · ∞ is no number.
      ids.fill(sequence[sequence.length - 1]!, b * S, (b + 1) * S);
      ids.set(sequence, b * S);
      for (let s = 0; s < S; s++) positions[b * S + s] = BigInt(P + s);
    }
    const feeds: Record<string, Tensor> = {
      ids: tensor("int32", [B, S], ids),
      positions: tensor("int64", [B, S], positions),
    };
    rotary(feeds, P + S);
    for (const [w, window] of windows.entries()) {
      feeds[`mask.${w}`] = tensor("float32", [1, 1, S, 1, P + S], prefillMask({ past: P, length: S, window }));
    }
    const dims = [P, 1, config.kvHeads, config.headDim];
    for (const layer of layers) {
      feeds[`past_k.${layer}`] = tensor("float32", dims, past?.keys[layer] ?? NO_POSITIONS);
      feeds[`past_v.${layer}`] = tensor("float32", dims, past?.values[layer] ?? NO_POSITIONS);
    }
    return { stride: S, ...run("prefill", feeds, how) };
  }

  function decode({ prompt, past }: DecodeRows, ids: Int32Array, adapter: LoadedAdapter | null): Float32Array {
    const B = ids.length;
    const shared = !("rows" in prompt);
    const promptRoom = prompt.capacity;
    const prompts = Array.from({ length: B }, (_, b) => (shared ? prompt.length : prompt.lengths[b]!));
    const lengths = past.lengths.slice(0, B);
    const positions = BigInt64Array.from(prompts, (length, b) => BigInt(length + lengths[b]!));
    // An adapter's matrices are not packed beforehand, and a single row times such a matrix is summed in another order.
    const even = evenRows || adapter !== null;
    const fed = even && B % 2 === 1 ? padded(ids, 1) : ids;
    const feeds: Record<string, Tensor> = {
      ids: tensor("int32", [fed.length, 1], fed),
      positions: tensor("int64", [B, 1], positions),
    };
    rotary(feeds, Number(positions.reduce((a, b) => (a > b ? a : b))) + 1);
    for (const [w, window] of windows.entries()) {
      const mask = decodeMask({ prompts, promptRoom, lengths, room: past.capacity, window });
      feeds[`mask.${w}`] = tensor("float32", [B, 1, 1, promptRoom + past.capacity + 1], mask);
    }
    const { kvHeads, headDim } = config;
    const promptDims = shared ? [promptRoom, kvHeads, headDim] : [B, kvHeads, promptRoom, headDim];
    const pastDims = [B, kvHeads, past.capacity, headDim];
    for (const layer of layers) {
      feeds[`prompt_k.${layer}`] = tensor("float32", promptDims, prompt.keys[layer]!);
      feeds[`prompt_v.${layer}`] = tensor("float32", promptDims, prompt.values[layer]!);
      feeds[`past_k.${layer}`] = tensor("float32", pastDims, past.keys[layer]!);
      feeds[`past_v.${layer}`] = tensor("float32", pastDims, past.values[layer]!);
    }
    const { hidden, keys, values } = run(shared ? "decode_shared" : "decode", feeds, { adapter, hidden: true });
    append(past, keys, values);
    return hidden.subarray(0, B * config.hiddenSize);
  }

  function runHead<F extends HeadOutput>(rows: Float32Array, inputs: HeadInputs, fetches: readonly F[]): HeadResult<F> {
    const { hiddenSize, vocabSize } = config;
    const N = rows.length / hiddenSize;
    const odd = evenRows && N % 2 === 1;
    if (odd) return firstRows(runHead(padded(rows, hiddenSize), repeatLast(inputs, N, vocabSize), fetches), N);
    const { uniform, targets, at, k = 0, reference } = inputs;
    const needed = new Set<HeadPart>(fetches.flatMap((name) => NEEDS[name]));
    const feeds: Record<string, Tensor> = {
      rows: tensor("float32", [N, hiddenSize], rows),
      inverse_temperature: tensor("float32", [N, 1], inputs.inverseTemperature),
      uniform: tensor("float32", [uniform ? N : 0, 1], uniform ?? NO_POSITIONS),
      targets: tensor("int32", [targets ? N : 0, 1], targets ?? new Int32Array(0)),
      at: tensor("int32", [N, at ? at.length / N : 0], at ?? new Int32Array(0)),
      k: tensor("int64", [1], BigInt64Array.of(BigInt(k))),
      reference: tensor("float32", [reference ? N : 0, vocabSize], reference ?? NO_POSITIONS),
    };
    for (const part of HEAD_PARTS) feeds[`want.${part}`] = tensor("bool", [], Uint8Array.of(needed.has(part) ? 1 : 0));
    return head.run(feeds, fetches) as HeadResult<F>;
  }

  return {
    config,
    evenRows,
    prefill,
    decode,
    head: runHead,
    dispose() {
      for (const session of trunks.values()) session.dispose();
      head.dispose();
    },
  };
}

const NO_POSITIONS = new Float32Array(0);

/** (N, width) → (N + 1, width), the new row zero. */
function padded<T extends Float32Array | Int32Array>(rows: T, width: number): T {
  const out = new (rows.constructor as new (length: number) => T)(rows.length + width);
  out.set(rows);
  return out;
}

function repeatLast(inputs: HeadInputs, N: number, vocabSize: number): HeadInputs {
  const { inverseTemperature, uniform, targets, at, k, reference } = inputs;
  const temperature = padded(inverseTemperature, 1);
  temperature[N] = inverseTemperature[N - 1]!;
  return {
    inverseTemperature: temperature,
    ...(uniform ? { uniform: padded(uniform, 1) } : {}),
    ...(targets ? { targets: padded(targets, 1) } : {}),
    ...(at ? { at: padded(at, at.length / N) } : {}),
    ...(k === undefined ? {} : { k }),
    ...(reference ? { reference: padded(reference, vocabSize) } : {}),
  };
}

/** Results for the first N of N + 1 rows. */
function firstRows<F extends HeadOutput>(result: HeadResult<F>, N: number): HeadResult<F> {
  const entries = Object.entries(result) as [F, Float32Array | BigInt64Array][];
  return Object.fromEntries(
    entries.map(([name, values]) => [name, values.subarray(0, (values.length / (N + 1)) * N)]),
  ) as HeadResult<F>;
}
