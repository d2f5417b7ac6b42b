import { readSync } from "node:fs";
import { fail } from "../../errors.ts";
import { tensorType } from "./format.ts";
import { dequantise } from "./quants/dequantise.ts";
import type { PlannedTensor } from "./tensor-plan.ts";

/** Stored bytes converted at a time: large enough for sequential reading, small beside any model. */
const CHUNK_BYTES = 4 * 1024 * 1024;

/**
 * Yields a tensor's bytes as the checkpoint stores them (little-endian, row-major), a chunk at a time; memory stays at a
 * few chunks (or one head's rows of q or k). A yielded buffer is valid until the next one. Blocks.
 */
export function* convertTensor(tensor: PlannedTensor, fd: number): Generator<Uint8Array> {
  const { source } = tensor;
  if (source === null) {
    const values = tensor.shape.reduce((product, size) => product * size, 1);
    yield new Uint8Array(values * 4);
    return;
  }
  const type = tensorType(source.type);
  // Rows within a head change places, so a head is converted whole; otherwise any number of blocks will do.
  const rows = tensor.shape[0] ?? 1;
  const headRows = tensor.unpermuteHeads ? rows / tensor.unpermuteHeads : 0;
  const step = headRows
    ? (source.bytes / rows) * headRows
    : Math.max(1, Math.floor(CHUNK_BYTES / type.bytes)) * type.bytes;
  for (let at = 0; at < source.bytes; at += step) {
    const stored = new Uint8Array(Math.min(step, source.bytes - at));
    readExactly(fd, stored, source.offset + at);
    const ordered = headRows ? unpermuteHead(stored, headRows) : stored;
    if (tensor.dtype !== "F32") {
      yield ordered;
      continue;
    }
    const values = new Float32Array((ordered.length / type.bytes) * type.block);
    dequantise(source.type, ordered, values);
    if (tensor.minusOne) for (let i = 0; i < values.length; i++) values[i]! -= 1;
    yield new Uint8Array(values.buffer);
  }
}

/**
 * llama.cpp rotates neighbouring dimensions (2j, 2j + 1) where Hugging Face rotates (j, j + d/2); its converter moved the
 * rows of each head accordingly. Row t·d/2 + j of the checkpoint is row 2j + t of the file. Works on stored bytes, since
 * blocks never span rows.
 */
export function unpermuteHead(stored: Uint8Array, rows: number): Uint8Array {
  const rowBytes = stored.length / rows;
  const ordered = new Uint8Array(stored.length);
  for (let t = 0; t < 2; t++) {
    for (let j = 0; j < rows / 2; j++) {
      const from = (2 * j + t) * rowBytes;
      ordered.set(stored.subarray(from, from + rowBytes), (t * (rows / 2) + j) * rowBytes);
    }
  }
  return ordered;
}

function readExactly(fd: number, target: Uint8Array, offset: number): void {
  let filled = 0;
  while (filled < target.length) {
    const count = readSync(fd, target, filled, target.length - filled, offset + filled);
    if (count === 0) throw fail("invalid_checkpoint", "the GGUF file shrank while it was read; try again");
    filled += count;
  }
}
