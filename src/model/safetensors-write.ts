/** Writes safetensors files tensor by tensor: memory is bounded by what one chunk holds. */
import { randomUUID } from "node:crypto";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import path from "node:path";
import { fail } from "../errors.ts";
import { syncDirectory } from "../sync-directory.ts";
import type { Dtype } from "./checkpoint.ts";
import { DTYPE_BYTES } from "./dtype.ts";

export type TensorChunks = Uint8Array | (() => Iterable<Uint8Array> | AsyncIterable<Uint8Array>);

export interface TensorToWrite {
  name: string;
  dtype: Dtype;
  shape: readonly number[];
  /** Little-endian bytes, row major; a function is called when its turn comes. */
  data: TensorChunks;
}

/** The data begin at a multiple of this, so that mapped float32 tensors are aligned for any vector unit. */
const DATA_ALIGNMENT = 64;
const PREFIX_BYTES = 8;

/**
 * Atomic: the file appears under `file` complete and synced, or not at all. Tensors are laid out widest dtype first
 * (as the reference implementation does), otherwise in the order given.
 * Errors: `internal_error` when a tensor's data have another length than its shape says.
 */
export async function writeSafetensors(
  file: string,
  tensors: readonly TensorToWrite[],
  metadata: Readonly<Record<string, string>> = { format: "pt" },
): Promise<void> {
  const temporary = `${file}.${randomUUID()}.tmp`;
  const handle = await open(temporary, "wx");
  try {
    for await (const chunk of safetensorsFile(tensors, metadata).read()) await writeAll(handle, chunk);
    await handle.sync();
    await handle.close();
    await rename(temporary, file);
  } catch (error) {
    await handle.close().catch(() => {});
    await rm(temporary, { force: true });
    throw error;
  }
  await syncDirectory(path.dirname(file));
}

/** The file as it would be written: its size, and its bytes. Errors: as `writeSafetensors`. */
export function safetensorsFile(
  tensors: readonly TensorToWrite[],
  metadata: Readonly<Record<string, string>> = { format: "pt" },
): { bytes: number; read(): AsyncIterable<Uint8Array> } {
  const ordered = [...tensors].sort((a, b) => DTYPE_BYTES[b.dtype] - DTYPE_BYTES[a.dtype]);
  const header = encodeHeader(ordered, metadata);
  return {
    bytes: ordered.reduce((sum, tensor) => sum + byteLength(tensor), header.byteLength),
    async *read() {
      yield header;
      for (const tensor of ordered) yield* bytesOf(tensor);
    },
  };
}

function byteLength({ shape, dtype }: TensorToWrite): number {
  return shape.reduce((product, n) => product * n, DTYPE_BYTES[dtype]);
}

function encodeHeader(tensors: readonly TensorToWrite[], metadata: Readonly<Record<string, string>>): Uint8Array {
  const entries = new Map<string, unknown>([["__metadata__", metadata]]);
  let offset = 0;
  for (const tensor of tensors) {
    if (entries.has(tensor.name)) throw fail("internal_error", `tensor ${tensor.name} would be written twice`);
    const end = offset + byteLength(tensor);
    entries.set(tensor.name, { dtype: tensor.dtype, shape: tensor.shape, data_offsets: [offset, end] });
    offset = end;
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(entries)));
  const total = Math.ceil((PREFIX_BYTES + json.length) / DATA_ALIGNMENT) * DATA_ALIGNMENT;
  // The format pads with spaces.
  const header = new Uint8Array(total).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(total - PREFIX_BYTES), true);
  header.set(json, PREFIX_BYTES);
  return header;
}

async function* bytesOf(tensor: TensorToWrite): AsyncGenerator<Uint8Array> {
  const expected = byteLength(tensor);
  let written = 0;
  for await (const chunk of typeof tensor.data === "function" ? tensor.data() : [tensor.data]) {
    written += chunk.byteLength;
    if (written > expected) break;
    yield chunk;
  }
  if (written !== expected) {
    throw fail(
      "internal_error",
      `tensor ${tensor.name} has ${written} bytes of data where its shape asks for ${expected}`,
    );
  }
}

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  let done = 0;
  while (done < bytes.byteLength) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.byteLength - done);
    done += bytesWritten;
  }
}
