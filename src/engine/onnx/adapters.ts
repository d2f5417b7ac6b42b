import { fail } from "../../errors.ts";
import type { AdapterFiles, ModelConfig, TensorLocation } from "../../model/checkpoint.ts";
import { readTensor } from "../../model/tensor-data.ts";
import { type LoraUpdates, loraFeeds, loraKey } from "./lora-feeds.ts";
import type { Tensor } from "./runtime.ts";

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

async function readAdapter(files: AdapterFiles, config: ModelConfig): Promise<LoadedAdapter> {
  const updates: LoraUpdates = new Map();
  for (const { layer, module, rank, scale, a, b } of files.targets) {
    updates.set(loraKey(layer, module), { rank, scale, a: await readFloats(a), b: await readFloats(b) });
  }
  return { hash: files.hash, feeds: loraFeeds(config, updates) };
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
