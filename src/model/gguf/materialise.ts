import { realpath, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { fail } from "../../errors.ts";
import { createPeer } from "../../thread/peer.ts";
import { spawnWorker } from "../../thread/spawn.ts";
import { ggufCacheKey } from "./cache-key.ts";
import type { ConvertParams } from "./worker.ts";
import type { WeightsProgress } from "./write-weights.ts";

export interface MaterialiseOptions {
  /** Bytes of the converted weights written so far and in all; not called when the directory exists already. */
  onProgress?: (progress: WeightsProgress) => void;
}

/** Conversions under way in this process, by directory: a second caller waits for the first. */
const underWay = new Map<string, Promise<string>>();

/**
 * A GGUF file as a Hugging Face checkpoint directory, `<cacheDir>/gguf/<key>`: config.json, generation_config.json,
 * model.safetensors (F32; F16 and BF16 tensors keep their type), tokenizer.json, tokenizer_config.json. Converted on first
 * use in a worker thread; later calls find it. The rest of the program sees only directories.
 *
 * Errors: `model_source_not_found`, `invalid_checkpoint`, `unsupported_checkpoint`, `unsupported_architecture`,
 * `engine_failed` (disk full).
 */
export async function materialiseGguf(
  ggufPath: string,
  cacheDir: string,
  options: MaterialiseOptions = {},
): Promise<string> {
  const label = basename(ggufPath);
  const path = await realpath(ggufPath).catch((cause: unknown) => {
    throw fail("model_source_not_found", `${label}: does not exist or cannot be read`, { cause });
  });
  if (!(await stat(path)).isFile()) throw fail("invalid_checkpoint", `${label}: is not a regular file`);
  const key = await ggufCacheKey(path).catch((cause: unknown) => {
    throw fail("model_source_not_found", `${label}: cannot be read`, { cause });
  });
  const target = join(resolve(cacheDir), "gguf", key);
  const running = underWay.get(target);
  if (running) return running;
  const work = convertUnlessThere({ path, target, label }, options).finally(() => underWay.delete(target));
  underWay.set(target, work);
  return work;
}

async function convertUnlessThere(params: ConvertParams, options: MaterialiseOptions): Promise<string> {
  const { target } = params;
  // The directory is renamed into place when it is complete, so its existence is enough.
  if (await stat(target).catch(() => null)) return target;
  const worker = spawnWorker(new URL("./worker.ts", import.meta.url));
  try {
    const peer = createPeer(worker, {});
    for await (const progress of peer.stream<WeightsProgress>("convert", params)) {
      options.onProgress?.(progress);
    }
  } finally {
    await worker.terminate();
  }
  return target;
}
