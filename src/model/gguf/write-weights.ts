import { closeSync, fsyncSync, openSync, writeSync } from "node:fs";
import { convertTensor } from "./convert-tensor.ts";
import type { PlannedTensor } from "./tensor-plan.ts";

/** The data begins at a multiple of a cache line, so that mapped weights can be used where they lie. */
const HEADER_ALIGNMENT = 64;

export interface WeightsProgress {
  /** Bytes of model.safetensors written so far and in all. */
  written: number;
  total: number;
}

/**
 * Streams the planned tensors of a GGUF file into a safetensors file and syncs it. Blocks; memory is a few chunks.
 */
export function writeWeights(
  ggufPath: string,
  plan: readonly PlannedTensor[],
  target: string,
  onProgress: (progress: WeightsProgress) => void,
): void {
  const header = safetensorsHeader(plan);
  const total = header.length + plan.reduce((sum, tensor) => sum + tensorBytes(tensor), 0);
  const from = openSync(ggufPath, "r");
  try {
    const to = openSync(target, "wx");
    try {
      let written = write(to, header);
      for (const tensor of plan) {
        for (const chunk of convertTensor(tensor, from)) {
          written += write(to, chunk);
          onProgress({ written, total });
        }
      }
      fsyncSync(to);
    } finally {
      closeSync(to);
    }
  } finally {
    closeSync(from);
  }
}

/** Bytes that the checkpoint's weights will take on disk. */
export function plannedBytes(plan: readonly PlannedTensor[]): number {
  return plan.reduce((sum, tensor) => sum + tensorBytes(tensor), 0);
}

function tensorBytes(tensor: PlannedTensor): number {
  return tensor.shape.reduce((product, size) => product * size, tensor.dtype === "F32" ? 4 : 2);
}

/** u64 length, then JSON padded with spaces: name → dtype, shape, [begin, end) relative to the end of the header. */
function safetensorsHeader(plan: readonly PlannedTensor[]): Uint8Array {
  let offset = 0;
  const entries: Record<string, unknown> = { __metadata__: { format: "pt" } };
  for (const tensor of plan) {
    const end = offset + tensorBytes(tensor);
    entries[tensor.name] = { dtype: tensor.dtype, shape: tensor.shape, data_offsets: [offset, end] };
    offset = end;
  }
  const json = Buffer.from(JSON.stringify(entries));
  const length = Math.ceil((8 + json.length) / HEADER_ALIGNMENT) * HEADER_ALIGNMENT - 8;
  const header = Buffer.alloc(8 + length, " ");
  header.writeBigUInt64LE(BigInt(length), 0);
  json.copy(header, 8);
  return header;
}

function write(fd: number, bytes: Uint8Array): number {
  let done = 0;
  while (done < bytes.length) done += writeSync(fd, bytes, done);
  return done;
}
