/**
 * A copy of a checkpoint whose logits come out divided by a temperature, for servers that cannot scale them. The final
 * RMSNorm multiplies by its weight w, and the head is linear, so w / T divides every logit by T. Gemma stores w − 1:
 * (1 + w) / T − 1. Exact in float32; in 16-bit files to the type's own rounding.
 */

import { randomUUID } from "node:crypto";
import {
  chmod,
  constants,
  copyFile,
  link,
  lstat,
  mkdir,
  open,
  readFile,
  rename,
  rm,
  writeFile,
} from "node:fs/promises";
import path from "node:path";
import { fail, PreceptorError } from "../errors.ts";
import type { Checkpoint, TensorLocation } from "./checkpoint.ts";
import { decodeFloats, encodeFloats, isFloatDtype } from "./dtype.ts";
import { parseJsonObject } from "./json.ts";
import { type OpenCheckpointOptions, openCheckpoint } from "./open.ts";
import { type ModelDirectory, openDirectory } from "./paths.ts";
import { readTensor } from "./tensor-data.ts";

/** Key of config.json that remembers the temperature; other programs ignore it. */
export const TEMPER_KEY = "preceptor_temper";
const FINAL_NORM = "model.norm.weight";

/** Weights in other formats would not be tempered. */
const OTHER_WEIGHTS = /\.(bin|pt|pth|ckpt|h5|msgpack|gguf|onnx)$|\.tmp$|\.bin\.index\.json$/;

/**
 * Writes `outDirectory` (which must not exist) complete or not at all; files that do not change are hard-linked where
 * the file system can. Returns its resolved path.
 * Errors: `invalid_value` (temperature, an existing output), and those of `openCheckpoint`.
 */
export async function temperCheckpoint(
  directory: string,
  outDirectory: string,
  temperature: number,
  options: OpenCheckpointOptions = {},
): Promise<string> {
  if (!Number.isFinite(temperature) || temperature <= 0) {
    throw fail("invalid_value", `temperature is ${temperature}; it must be a number above 0`, { param: "temperature" });
  }
  const checkpoint = await openCheckpoint(directory, options);
  const source = await openDirectory(directory, options.allowedRoots);
  const target = path.resolve(outDirectory);
  const temporary = `${target}.${randomUUID()}.tmp`;
  await refuseExisting(target);
  try {
    await mkdir(temporary, { recursive: true });
    await copyFiles(source, temporary, checkpoint, temperature);
    await rename(temporary, target);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => {});
    if (error instanceof PreceptorError) throw error;
    const reason = error instanceof Error && "code" in error ? ` (${String(error.code)})` : "";
    throw fail("invalid_value", `${target} cannot be written${reason}`, { param: "out", cause: error });
  }
  return target;
}

async function refuseExisting(target: string): Promise<void> {
  const info = await lstat(target).catch(() => null);
  if (info === null) return;
  throw fail("invalid_value", `${target} exists already; name a directory that does not`, { param: "out" });
}

async function copyFiles(source: ModelDirectory, target: string, checkpoint: Checkpoint, temperature: number) {
  const norm = checkpoint.tensors[FINAL_NORM];
  if (norm === undefined) throw fail("invalid_checkpoint", `${FINAL_NORM} is missing`);
  for (const name of source.entries) {
    // Folders (adapters, caches) and links that lead nowhere are not part of the model.
    const file = await source.file(name).catch(() => null);
    if (file === null || OTHER_WEIGHTS.test(name)) continue;
    const copy = path.join(target, name);
    if (name === "config.json") await writeConfig(file.path, copy, temperature);
    else if (file.path === norm.path) await writeTemperedWeights(norm, copy, checkpoint.config.gemmaNorms, temperature);
    else await linkOrCopy(file.path, copy);
  }
}

async function writeConfig(from: string, to: string, temperature: number): Promise<void> {
  const config = parseJsonObject(await readFile(from), "config.json", "invalid_checkpoint");
  const before = config[TEMPER_KEY];
  // Tempering a tempered copy divides once more.
  const total = typeof before === "number" ? before * temperature : temperature;
  await writeFile(to, `${JSON.stringify({ ...config, [TEMPER_KEY]: total }, null, 2)}\n`, { flush: true });
}

/** Dtype and length stay, so the file is copied (by reference where the file system can) and one tensor overwritten. */
async function writeTemperedWeights(norm: TensorLocation, to: string, gemma: boolean, temperature: number) {
  await copyFile(norm.path, to, constants.COPYFILE_FICLONE);
  // The copy inherits the source's mode, and downloaded weights are often read-only.
  await chmod(to, 0o644);
  const tempered = temperWeight(await readTensor(norm), gemma, temperature);
  if (!isFloatDtype(norm.dtype)) throw fail("unsupported_checkpoint", `${FINAL_NORM} is ${norm.dtype}`);
  const bytes = encodeFloats(tempered, norm.dtype);
  if (decodeFloats(bytes, norm.dtype).some((x) => !Number.isFinite(x))) {
    throw fail("invalid_value", `temperature ${temperature} takes the final norm beyond ${norm.dtype}`, {
      param: "temperature",
    });
  }
  const file = await open(to, "r+");
  try {
    await file.write(bytes, 0, bytes.length, norm.offset);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** (d) weight of the final norm → (d) the weight that divides every logit by `temperature`. */
export function temperWeight(weight: Float32Array, gemma: boolean, temperature: number): Float32Array {
  return weight.map((w) => (gemma ? (1 + w) / temperature - 1 : w / temperature));
}

async function linkOrCopy(from: string, to: string): Promise<void> {
  try {
    await link(from, to);
  } catch {
    // Another file system, or one without hard links.
    await copyFile(from, to, constants.COPYFILE_FICLONE);
  }
}
