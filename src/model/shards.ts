/** The weight files of a checkpoint directory: `model.safetensors`, or shards named by `model.safetensors.index.json`. */
import { fail } from "../errors.ts";
import type { TensorLocation } from "./checkpoint.ts";
import { isObject, readJson } from "./json.ts";
import type { ModelDirectory } from "./paths.ts";
import { readSafetensorsHeader, type SafetensorsFile } from "./safetensors.ts";

const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";
/** The largest published checkpoints have a few hundred. */
const MAX_SHARDS = 4096;

export interface WeightFiles {
  /** Sorted by name. */
  files: readonly SafetensorsFile[];
  tensors: ReadonlyMap<string, TensorLocation>;
  bytes: number;
}

/** Errors: `invalid_checkpoint`, `unsupported_checkpoint` (only PyTorch files), `model_source_not_allowed`. */
export async function readWeightFiles(directory: ModelDirectory): Promise<WeightFiles> {
  // A single file goes before an index, as in Transformers.
  if (directory.entries.has(SINGLE)) return combine([await header(directory, SINGLE)]);
  if (!directory.entries.has(INDEX)) throw noWeights(directory);
  const map = await readIndex(directory);
  const names = [...new Set(map.values())].sort();
  if (names.length > MAX_SHARDS)
    throw fail("invalid_checkpoint", `${INDEX} names ${names.length} files; at most ${MAX_SHARDS} are read`);
  const files: SafetensorsFile[] = [];
  const byName = new Map<string, SafetensorsFile>();
  for (const name of names) {
    const file = await header(directory, name);
    files.push(file);
    byName.set(name, file);
  }
  for (const [tensor, name] of map) {
    if (byName.get(name)?.tensors.has(tensor) !== true) {
      throw fail("invalid_checkpoint", `${INDEX} says that ${tensor} is in ${name}, but it is not there`);
    }
  }
  return combine(files);
}

async function header(directory: ModelDirectory, name: string): Promise<SafetensorsFile> {
  const file = await directory.file(name);
  return readSafetensorsHeader(file.path, name);
}

async function readIndex(directory: ModelDirectory): Promise<Map<string, string>> {
  const { value } = await readJson(directory, INDEX);
  if (!isObject(value.weight_map)) throw fail("invalid_checkpoint", `${INDEX} has no weight_map`);
  const map = new Map<string, string>();
  for (const [tensor, name] of Object.entries(value.weight_map)) {
    if (typeof name !== "string") throw fail("invalid_checkpoint", `${INDEX}: weight_map.${tensor} is not a file name`);
    map.set(tensor, name);
  }
  if (map.size === 0) throw fail("invalid_checkpoint", `${INDEX} names no tensors`);
  return map;
}

function combine(files: readonly SafetensorsFile[]): WeightFiles {
  const tensors = new Map<string, TensorLocation>();
  for (const file of files) {
    for (const [name, location] of file.tensors) {
      if (tensors.has(name)) throw fail("invalid_checkpoint", `tensor ${name} occurs in two weight files`);
      tensors.set(name, location);
    }
  }
  return { files, tensors, bytes: files.reduce((sum, file) => sum + file.bytes, 0) };
}

function noWeights(directory: ModelDirectory): Error {
  const other = [...directory.entries].find((name) => /\.(bin|pt|pth|ckpt|h5|msgpack)$/.test(name));
  if (other !== undefined) {
    return fail(
      "unsupported_checkpoint",
      `${directory.name} has ${other} but no model.safetensors; convert it to safetensors (in Transformers: model.save_pretrained(directory, safe_serialization=True))`,
    );
  }
  return fail("invalid_checkpoint", `${directory.name} has neither ${SINGLE} nor ${INDEX}`);
}
