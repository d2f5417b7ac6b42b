import { createHash } from "node:crypto";
import { open } from "node:fs/promises";

/** Covers the header of small models whole and the metadata of any. */
const HEAD_BYTES = 4 * 1024 * 1024;
const SAMPLES = 64;
const SAMPLE_BYTES = 16 * 1024;
/** Bump when the conversion changes, so that directories made by an older version are not reused. */
const CONVERTER_VERSION = 1;

/**
 * Names the cached conversion of a GGUF file: 32 hex digits over its size, modification time, first 4 MB and 64 samples
 * spread over the rest. A full content hash of 20 GB takes a minute at every start; a file that was replaced or edited
 * differs in size or time, and the samples tell apart files that were copied with equal times.
 */
export async function ggufCacheKey(path: string): Promise<string> {
  const file = await open(path, "r");
  try {
    const { size, mtimeMs } = await file.stat();
    const hash = createHash("sha256").update(`preceptor-gguf ${CONVERTER_VERSION} ${size} ${mtimeMs}\n`);
    const read = async (offset: number, length: number): Promise<void> => {
      const { bytesRead, buffer } = await file.read(Buffer.alloc(length), 0, length, offset);
      hash.update(buffer.subarray(0, bytesRead));
    };
    await read(0, Math.min(HEAD_BYTES, size));
    for (let i = 1; i <= SAMPLES && size > HEAD_BYTES; i++) {
      const offset = Math.floor(HEAD_BYTES + ((size - HEAD_BYTES) * i) / SAMPLES) - SAMPLE_BYTES;
      await read(Math.max(0, offset), SAMPLE_BYTES);
    }
    return hash.digest("hex").slice(0, 32);
  } finally {
    await file.close();
  }
}
