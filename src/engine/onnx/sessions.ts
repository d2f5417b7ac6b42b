import { queryRows } from "../../graph/blocks/attention.ts";
import { HEAD_PARTS, type HeadPart, headGraph } from "../../graph/head.ts";
import { encodeModel } from "../../graph/proto/onnx.ts";
import { maskWindows, trunkGraph } from "../../graph/trunk.ts";
import type { QuantisedWeights } from "../../graph/weights.ts";
import type { Checkpoint, ModelConfig } from "../../model/checkpoint.ts";
import { type LoadedAdapter, noAdapter } from "./adapters.ts";
import { append, type KvCache } from "./kv-cache.ts";
import { attentionMask } from "./mask.ts";
import { createRopeTable } from "./rope.ts";
import { createSession, type Session, type SessionOptions, type Tensor, tensor } from "./runtime.ts";

/** The two sessions of a loaded model, as functions over arrays. Everything here blocks the calling thread. */
export interface Sessions {
  readonly config: ModelConfig;
  /** Bytes of weights in memory: each matrix once, packed. The embedding table stays in the mapped file. */
  readonly weightBytes: number;
  /**
   * Runs S = ids.length / cache.rows new tokens of every row and appends their keys and values to the cache.
   * Returns hidden states (rows·S, hidden), or nothing when `wanted` is false.
   */
  forward(cache: KvCache, ids: Int32Array, adapter: LoadedAdapter | null, wanted: boolean): Float32Array;
  head<F extends HeadOutput>(rows: Float32Array, inputs: HeadInputs, fetches: readonly F[]): HeadResult<F>;
  dispose(): void;
}

export interface HeadInputs {
  /** (N) multiplies the logits. */
  inverseTemperature: Float32Array;
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
} as const satisfies Record<string, readonly HeadPart[]>;

export type HeadOutput = keyof typeof NEEDS;
export type HeadResult<F extends HeadOutput> = {
  [K in F]: K extends "top_ids" ? BigInt64Array : Float32Array;
};

export function openSessions(checkpoint: Checkpoint, quantised: QuantisedWeights, options: SessionOptions): Sessions {
  const { config } = checkpoint;
  const head = createSession(encodeModel(headGraph(checkpoint, quantised)), options);
  let lora = false;
  let trunk = open();
  const ropes = config.ropes.map(createRopeTable);
  const windows = maskWindows(config);

  function open(): Session {
    return createSession(encodeModel(trunkGraph(checkpoint, { lora, quantised })), options);
  }

  /** Users without adapters pay nothing for them: the graph with adapter inputs replaces the other on first use. */
  function adapterFeeds(adapter: LoadedAdapter | null): Readonly<Record<string, Tensor>> {
    if (adapter && !lora) {
      // Away with the old one first: two sets of packed weights may not fit.
      trunk.dispose();
      try {
        lora = true;
        trunk = open();
      } catch (error) {
        lora = false;
        trunk = open();
        throw error;
      }
    }
    return lora ? (adapter ?? noAdapter(config)).feeds : {};
  }

  function forward(cache: KvCache, ids: Int32Array, adapter: LoadedAdapter | null, wanted: boolean): Float32Array {
    const B = cache.rows;
    const S = ids.length / B;
    const feeds: Record<string, Tensor> = {
      ...adapterFeeds(adapter),
      ids: tensor("int32", [B, S], ids),
      positions: tensor(
        "int64",
        [B, S],
        BigInt64Array.from(ids, (_, i) => BigInt(i)),
      ),
    };
    const positions = Int32Array.from(ids, (_, i) => cache.lengths[Math.floor(i / S)]! + (i % S));
    for (const [r, table] of ropes.entries()) {
      const { cos, sin } = table.rows(positions);
      feeds[`cos.${r}`] = tensor("float32", [ids.length, config.headDim / 2], cos);
      feeds[`sin.${r}`] = tensor("float32", [ids.length, config.headDim / 2], sin);
    }
    const R = queryRows(config, S);
    const lengths = cache.lengths.slice(0, B);
    for (const [w, window] of windows.entries()) {
      const mask = attentionMask({ lengths, capacity: cache.capacity, length: S, queryRows: R, window });
      feeds[`mask.${w}`] = tensor("float32", [B, 1, R, 1, cache.capacity + S], mask);
    }
    const past = [B, config.kvHeads, cache.capacity, config.headDim];
    for (let l = 0; l < config.layers; l++) {
      feeds[`past_k.${l}`] = tensor("float32", past, cache.keys[l]!);
      feeds[`past_v.${l}`] = tensor("float32", past, cache.values[l]!);
    }
    const fetches = config.layerKinds.flatMap((_, l) => [`new_k.${l}`, `new_v.${l}`]);
    const out = trunk.run(feeds, wanted ? [...fetches, "hidden"] : fetches) as Record<string, Float32Array>;
    const part = (name: string): Float32Array[] => config.layerKinds.map((_, l) => out[`${name}.${l}`]!);
    append(cache, S, part("new_k"), part("new_v"));
    return out.hidden ?? new Float32Array(0);
  }

  function runHead<F extends HeadOutput>(rows: Float32Array, inputs: HeadInputs, fetches: readonly F[]): HeadResult<F> {
    const N = rows.length / config.hiddenSize;
    const { targets, at, k = 0, reference } = inputs;
    const needed = new Set<HeadPart>(fetches.flatMap((name) => NEEDS[name]));
    const feeds: Record<string, Tensor> = {
      rows: tensor("float32", [N, config.hiddenSize], rows),
      inverse_temperature: tensor("float32", [N, 1], inputs.inverseTemperature),
      targets: tensor("int32", [targets ? N : 0, 1], targets ?? new Int32Array(0)),
      at: tensor("int32", [N, at ? at.length / N : 0], at ?? new Int32Array(0)),
      k: tensor("int64", [1], BigInt64Array.of(BigInt(k))),
      reference: tensor("float32", [reference ? N : 0, config.vocabSize], reference ?? new Float32Array(0)),
    };
    for (const part of HEAD_PARTS) feeds[`want.${part}`] = tensor("bool", [], Uint8Array.of(needed.has(part) ? 1 : 0));
    return head.run(feeds, fetches) as HeadResult<F>;
  }

  return {
    config,
    weightBytes: packedBytes(checkpoint, quantised),
    forward,
    head: runHead,
    dispose() {
      trunk.dispose();
      head.dispose();
    },
  };
}

/** Weights that are multiplied by, packed: once in float, or in their quantised size. */
function packedBytes({ tensors, config }: Checkpoint, quantised: QuantisedWeights): number {
  let bytes = 0;
  for (const [name, { shape }] of Object.entries(tensors)) {
    if (name === "model.embed_tokens.weight" && !config.tiedHead) continue;
    const matrix = quantised.get(name);
    const floats = shape.reduce((a, b) => a * b, 1) * Float32Array.BYTES_PER_ELEMENT;
    bytes += matrix ? matrix.packed.bytes + matrix.scales.bytes + (matrix.zeros?.bytes ?? 0) : floats;
  }
  return bytes;
}
