import { fail } from "../../errors.ts";
import { loraInput } from "../../graph/blocks/context.ts";
import { type LayerMatrix, layerMatrices, type Matrix } from "../../graph/matrices.ts";
import type { AdapterFiles, ModelConfig, TensorLocation } from "../../model/checkpoint.ts";
import { readTensor } from "../../model/tensor-data.ts";
import { type Tensor, tensor } from "./runtime.ts";

/** LoRA tensors as they enter the graph: stacked like the matrices they update, the scale folded into B, all in float. */
export interface LoadedAdapter {
  readonly hash: string;
  readonly feeds: Readonly<Record<string, Tensor>>;
}

export interface AdapterStore {
  /** Reads an adapter, or returns the one read before. Throws `invalid_adapter`. */
  load(files: AdapterFiles): Promise<LoadedAdapter>;
  bytes(): number;
}

/** A job that pulls checkpoint after checkpoint must not fill memory; eight rank-16 adapters of a 7 B model are 1.3 GB. */
const KEPT_ADAPTERS = 8;

export function createAdapterStore(config: ModelConfig): AdapterStore {
  const known = new Map<string, Promise<LoadedAdapter>>();
  const sizes = new Map<string, number>();

  return {
    load(files) {
      const found = known.get(files.hash) ?? readAdapter(files, config);
      known.delete(files.hash);
      known.set(files.hash, found);
      found.then(
        (adapter) => sizes.set(files.hash, adapterBytes(adapter)),
        () => known.delete(files.hash),
      );
      const oldest = known.keys().next().value;
      if (known.size > KEPT_ADAPTERS && oldest !== undefined) {
        known.delete(oldest);
        sizes.delete(oldest);
      }
      return found;
    },
    bytes: () => [...sizes.values()].reduce((sum, bytes) => sum + bytes, 0),
  };
}

const adapterBytes = (adapter: LoadedAdapter): number =>
  Object.values(adapter.feeds).reduce((sum, { data }) => sum + data.byteLength, 0);

interface Update {
  rank: number;
  /** (rank, in) */
  a: Float32Array;
  /** (out, rank), scaled */
  b: Float32Array;
}

async function readAdapter(files: AdapterFiles, config: ModelConfig): Promise<LoadedAdapter> {
  const updates = new Map<string, Update>();
  for (const { layer, module, rank, scale, a, b } of files.targets) {
    const scaled = await readFloats(b);
    for (let i = 0; i < scaled.length; i++) scaled[i]! *= scale;
    updates.set(`model.layers.${layer}.${module}`, { rank, a: await readFloats(a), b: scaled });
  }
  const feeds: Record<string, Tensor> = {};
  for (let layer = 0; layer < config.layers; layer++) {
    for (const [kind, matrix] of Object.entries(layerMatrices(config, layer)) as [LayerMatrix, Matrix][]) {
      const parts = matrix.parts.map((part) => {
        const key = part.replace(/\.(self_attn|mlp)\./, ".").replace(/\.weight$/, "");
        const update = updates.get(key);
        updates.delete(key);
        return { rows: rowsOf(config, part), update };
      });
      const { rank, a, b } = stacked(parts, matrix);
      feeds[loraInput("a", layer, kind)] = tensor("float32", [rank, matrix.columns], a);
      feeds[loraInput("b", layer, kind)] = tensor("float32", [matrix.rows, rank], b);
    }
  }
  const [unknown] = updates.keys();
  if (unknown) throw fail("invalid_adapter", `the adapter changes ${unknown}, which this model lacks`);
  return { hash: files.hash, feeds };
}

/** Rows of one part of a stacked matrix. */
function rowsOf({ heads, kvHeads, headDim, hiddenSize, intermediateSize }: ModelConfig, part: string): number {
  if (part.includes("q_proj")) return heads * headDim;
  if (/[kv]_proj/.test(part)) return kvHeads * headDim;
  return /(gate|up)_proj/.test(part) ? intermediateSize : hiddenSize;
}

/** A of all parts one below the other, B block-diagonal: every part sees its own update only. A part without one has rank 0. */
function stacked(parts: readonly { rows: number; update: Update | undefined }[], matrix: Matrix): Update {
  const rank = parts.reduce((sum, { update }) => sum + (update?.rank ?? 0), 0);
  const a = new Float32Array(rank * matrix.columns);
  const b = new Float32Array(matrix.rows * rank);
  let row = 0;
  let column = 0;
  for (const { rows, update } of parts) {
    if (update) {
      a.set(update.a, column * matrix.columns);
      for (let r = 0; r < rows; r++) {
        b.set(update.b.subarray(r * update.rank, (r + 1) * update.rank), (row + r) * rank + column);
      }
      column += update.rank;
    }
    row += rows;
  }
  return { rank, a, b };
}

async function readFloats(tensor: TensorLocation): Promise<Float32Array> {
  try {
    return await readTensor(tensor);
  } catch (cause) {
    throw fail(
      "invalid_adapter",
      "the adapter's weight file can no longer be read as it was registered; register it again",
      {
        cause,
      },
    );
  }
}
