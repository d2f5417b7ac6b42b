/** The values of a tensor, read from its file. */
import { type FileHandle, open } from "node:fs/promises";
import { fail } from "../errors.ts";
import type { TensorLocation } from "./checkpoint.ts";
import { DTYPE_BYTES, decodeFloats, isFloatDtype } from "./dtype.ts";

/** Large enough for the disk, small beside any tensor worth streaming; a multiple of every element size. */
const CHUNK_BYTES = 4 * 1024 * 1024;

/** Raw bytes in order, in chunks of at most 4 MiB. Errors: `invalid_checkpoint` when the file has become shorter. */
export async function* readTensorBytes(location: TensorLocation): AsyncGenerator<Uint8Array> {
  const file = await open(location.path, "r");
  try {
    for (let done = 0; done < location.bytes; done += CHUNK_BYTES) {
      const length = Math.min(CHUNK_BYTES, location.bytes - done);
      yield await readFully(file, location.offset + done, length);
    }
  } finally {
    await file.close();
  }
}

async function readFully(file: FileHandle, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await file.read(bytes, done, length - done, offset + done);
    if (bytesRead === 0) throw fail("invalid_checkpoint", "a weight file became shorter while it was being read");
    done += bytesRead;
  }
  return bytes;
}

/** All elements as float32, row major. Errors: `unsupported_checkpoint` for a dtype other than F32, F16, BF16. */
export async function readTensor(location: TensorLocation): Promise<Float32Array> {
  const { dtype, bytes } = location;
  if (!isFloatDtype(dtype)) {
    throw fail("unsupported_checkpoint", `a tensor of dtype ${dtype} cannot be read as numbers; F32, F16 and BF16 can`);
  }
  const values = new Float32Array(bytes / DTYPE_BYTES[dtype]);
  let done = 0;
  for await (const chunk of readTensorBytes(location)) {
    const decoded = decodeFloats(chunk, dtype);
    values.set(decoded, done);
    done += decoded.length;
  }
  return values;
}
