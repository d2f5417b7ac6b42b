import { fail } from "../../errors.ts";
import { loraInput, PROJECTIONS, type Projection, projectionShape } from "../../graph/blocks/context.ts";
import type { AdapterFiles, ModelConfig, TensorLocation } from "../../model/checkpoint.ts";
import { readTensor } from "../../model/tensor-data.ts";
import { type Tensor, tensor } from "./runtime.ts";

/** LoRA tensors as they enter the graph: A as stored, B with the scale folded in, everything in float. */
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

async function readAdapter(files: AdapterFiles, config: ModelConfig): Promise<LoadedAdapter> {
  const feeds: Record<string, Tensor> = { ...noAdapter(config).feeds };
  for (const { layer, module, rank, scale, a, b } of files.targets) {
    if (!(module in PROJECTIONS))
      throw fail("invalid_adapter", `the adapter changes ${module}, which this model lacks`);
    const [out, inner] = projectionShape(config, module as Projection);
    const scaled = await readFloats(b);
    for (let i = 0; i < scaled.length; i++) scaled[i]! *= scale;
    feeds[loraInput("a", layer, module)] = tensor("float32", [rank, inner], await readFloats(a));
    feeds[loraInput("b", layer, module)] = tensor("float32", [out, rank], scaled);
  }
  return { hash: files.hash, feeds };
}

const nothing = new WeakMap<ModelConfig, LoadedAdapter>();

/** Rank 0 everywhere: B·(A·x) is then exactly 0, and the base's results keep every bit. */
export function noAdapter(config: ModelConfig): LoadedAdapter {
  const known = nothing.get(config);
  if (known) return known;
  const feeds: Record<string, Tensor> = {};
  for (let layer = 0; layer < config.layers; layer++) {
    for (const module of Object.keys(PROJECTIONS) as Projection[]) {
      const [out, inner] = projectionShape(config, module);
      feeds[loraInput("a", layer, module)] = tensor("float32", [0, inner], new Float32Array(0));
      feeds[loraInput("b", layer, module)] = tensor("float32", [out, 0], new Float32Array(0));
    }
  }
  const adapter = { hash: "", feeds };
  nothing.set(config, adapter);
  return adapter;
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
