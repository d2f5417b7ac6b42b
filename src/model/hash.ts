/** Identity of weights without reading gigabytes. */
import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import type { TensorLocation } from "./checkpoint.ts";
import type { SafetensorsFile } from "./safetensors.ts";

/**
 * Read from the beginning and the end of each tensor. Fine-tunes of one base share config, header and size, so those
 * alone could not tell them apart; and a tempered copy differs in the final norm only, of which this reads something.
 */
const SAMPLE_BYTES = 4096;

/**
 * `sha256:` over config, each file's size and header, and samples of every tensor. The same for every copy.
 * `files` come in the order of their names.
 */
export async function hashWeights(files: readonly SafetensorsFile[], config: Uint8Array): Promise<string> {
  const hash = createHash("sha256").update(config);
  for (const { path, bytes, header, tensors } of files) {
    hash.update(`\n${bytes}\n`).update(header);
    const handle = await open(path, "r");
    try {
      for (const location of [...tensors.values()].sort((a, b) => a.offset - b.offset)) {
        for (const sample of await readSamples(handle, location)) hash.update(sample);
      }
    } finally {
      await handle.close();
    }
  }
  return `sha256:${hash.digest("hex")}`;
}

/** True when two tensors of one shape and dtype have the same samples. */
export async function sameSamples(a: TensorLocation, b: TensorLocation): Promise<boolean> {
  const samples = await Promise.all(
    [a, b].map(async (location) => {
      const handle = await open(location.path, "r");
      try {
        return Buffer.concat(await readSamples(handle, location));
      } finally {
        await handle.close();
      }
    }),
  );
  return samples[0]!.equals(samples[1]!);
}

async function readSamples(handle: FileHandle, { offset, bytes }: TensorLocation): Promise<Uint8Array[]> {
  const size = Math.min(SAMPLE_BYTES, bytes);
  const starts = bytes > SAMPLE_BYTES ? [offset, offset + bytes - size] : [offset];
  return Promise.all(
    starts.map(async (start) => {
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(size), 0, size, start);
      return buffer.subarray(0, bytesRead);
    }),
  );
}
