import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import os from "node:os";
import type { Checkpoint } from "../../../model/checkpoint.ts";
import type { Precision } from "../../engine.ts";
import { RUNTIME_VERSION } from "../runtime.ts";

/** Changes whenever the same weights would be written differently. */
const FORMAT = 2;

/** Everything that decides what is packed and how: the weights, their precision, and the kernels of this machine. */
export async function packingKey({ weightsHash, tensors }: Checkpoint, precision: Precision): Promise<string> {
  const machine = [RUNTIME_VERSION, process.platform, process.arch, await processor()];
  const hash = createHash("sha256").update(JSON.stringify([FORMAT, weightsHash, precision, ...machine]));
  // The weights' own hash covers samples of the files; size and time of each file make a rewritten one a new entry.
  for (const file of [...new Set(Object.values(tensors).map((tensor) => tensor.path))].sort()) {
    const { size, mtimeMs } = await stat(file);
    hash.update(` ${size} ${mtimeMs}`);
  }
  return `${hash.digest("hex").slice(0, 32)}-${precision}`;
}

/** Instruction sets that ONNX Runtime has kernels for. Others come and go with the operating system's version. */
const KERNEL_FLAGS = /^(s?sse|avx|fma|f16c|amx|asimd|bf16|i8mm|sve|sme)/;

async function processor(): Promise<string> {
  const info = await readFile("/proc/cpuinfo", "utf8").catch(() => "");
  const value = (name: RegExp): string => new RegExp(`^(?:${name.source})\\s*: (.*)$`, "m").exec(info)?.[1] ?? "";
  const flags = value(/flags|Features/)
    .split(" ")
    .filter((flag) => KERNEL_FLAGS.test(flag));
  return [os.cpus()[0]?.model ?? "", value(/CPU part/), ...flags.sort()].join(" ");
}
