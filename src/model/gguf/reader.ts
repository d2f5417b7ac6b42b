import { closeSync, fstatSync, openSync } from "node:fs";
import { basename } from "node:path";
import { fail } from "../../errors.ts";
import { type BufferedReader, createBufferedReader } from "./buffered-reader.ts";
import {
  DEFAULT_ALIGNMENT,
  MAGIC,
  MAX_DIMENSIONS,
  MAX_TENSORS,
  OTHER_TENSOR_TYPES,
  TENSOR_TYPES,
  type TensorType,
  type TensorTypeName,
} from "./format.ts";
import { quote, type RawMetadata, readMetadata } from "./metadata.ts";

export interface GgufTensor {
  name: string;
  type: TensorTypeName;
  /** Slowest dimension first, as in Hugging Face files: a projection is (out, in). The file stores the reverse. */
  shape: readonly number[];
  /** Byte offset from the start of the file. */
  offset: number;
  bytes: number;
}

export interface GgufFile {
  /** File name, for messages. */
  label: string;
  /** Bytes before the tensor data. */
  headerBytes: number;
  fileBytes: number;
  metadata: RawMetadata;
  tensors: ReadonlyMap<string, GgufTensor>;
}

/**
 * Reads and validates everything before the tensor data: every size lies inside the file, tensors do not overlap, types
 * are known. Memory is bounded by the header limit whatever the file claims. Blocks: meant for a worker thread.
 *
 * `label` names the file in messages. Errors: `model_source_not_found`, `invalid_checkpoint` (broken), `unsupported_checkpoint` (valid, but not read here).
 */
export function readGguf(path: string, label: string = basename(path)): GgufFile {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (cause) {
    throw fail("model_source_not_found", `${label}: cannot be opened; check that it exists and is readable`, { cause });
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw fail("invalid_checkpoint", `${label}: is not a regular file`);
    return readHeader(createBufferedReader(fd, stat.size, label), stat.size, label);
  } finally {
    closeSync(fd);
  }
}

function readHeader(reader: BufferedReader, fileBytes: number, label: string): GgufFile {
  if (reader.u32("the magic number") !== MAGIC) {
    throw fail("invalid_checkpoint", `${label}: does not begin with "GGUF", so it is not a GGUF file`);
  }
  readVersion(reader, label);
  const tensorCount = reader.size("the number of tensors");
  const keyCount = reader.size("the number of metadata keys");
  if (tensorCount > MAX_TENSORS) throw fail("invalid_checkpoint", `${label}: claims to have ${tensorCount} tensors`);
  const metadata = readMetadata(reader, keyCount, label);
  refuseSplit(metadata, label);
  const relative = readTensorInfos(reader, tensorCount, label);
  const headerBytes = reader.position();
  const alignment = readAlignment(metadata, label);
  const dataStart = Math.ceil(headerBytes / alignment) * alignment;
  return {
    label,
    headerBytes,
    fileBytes,
    metadata,
    tensors: placeTensors(relative, dataStart, alignment, fileBytes, label),
  };
}

function readVersion(reader: BufferedReader, label: string): void {
  const version = reader.u32("the version");
  if (version === 2 || version === 3) return;
  if (version === 0x02000000 || version === 0x03000000) {
    throw fail("unsupported_checkpoint", `${label}: is a big-endian GGUF file; convert it to little-endian first`);
  }
  throw fail("unsupported_checkpoint", `${label}: has GGUF version ${version}; versions 2 and 3 are read`);
}

function refuseSplit(metadata: RawMetadata, label: string): void {
  const parts = metadata.get("split.count");
  if ((typeof parts === "number" && parts > 1) || /-\d{5}-of-(?!00001\.)\d{5}\.gguf$/.test(label)) {
    throw fail(
      "unsupported_checkpoint",
      `${label}: is one part of a split GGUF file; join the parts first (llama-gguf-split --merge)`,
    );
  }
}

function readAlignment(metadata: RawMetadata, label: string): number {
  const alignment = metadata.get("general.alignment") ?? DEFAULT_ALIGNMENT;
  // A power of two between 8 (the specification's minimum) and a page's order of magnitude.
  if (typeof alignment === "number" && alignment >= 8 && alignment <= 65_536 && (alignment & (alignment - 1)) === 0) {
    return alignment;
  }
  throw fail(
    "invalid_checkpoint",
    `${label}: general.alignment is ${String(alignment).slice(0, 40)}, not a power of two`,
  );
}

function readTensorInfos(reader: BufferedReader, count: number, label: string): GgufTensor[] {
  // A tensor info takes at least 8 (length) + 4 (dimensions) + 8 (one) + 4 (type) + 8 (offset) bytes.
  reader.demand(count * 32, "the tensor infos");
  const seen = new Set<string>();
  const tensors: GgufTensor[] = [];
  for (let i = 0; i < count; i++) {
    const name = reader.string(`the name of tensor ${i}`);
    if (seen.has(name)) throw fail("invalid_checkpoint", `${label}: tensor ${quote(name)} occurs twice`);
    seen.add(name);
    tensors.push(readTensorInfo(reader, name, label));
  }
  return tensors;
}

function readTensorInfo(reader: BufferedReader, name: string, label: string): GgufTensor {
  const what = `tensor ${quote(name)}`;
  const dimensions = reader.u32(what);
  if (dimensions < 1 || dimensions > MAX_DIMENSIONS) {
    throw fail("invalid_checkpoint", `${label}: ${what} claims ${dimensions} dimensions; 1 to ${MAX_DIMENSIONS} exist`);
  }
  const shape: number[] = [];
  for (let d = 0; d < dimensions; d++) shape.unshift(reader.size(`a dimension of ${what}`));
  const typeId = reader.u32(`the type of ${what}`);
  const offset = reader.size(`the offset of ${what}`);
  const type = (TENSOR_TYPES as Record<number, TensorType & { name: TensorTypeName }>)[typeId];
  if (!type) {
    const known = Object.values(TENSOR_TYPES).map((each) => each.name);
    throw fail(
      OTHER_TENSOR_TYPES[typeId] ? "unsupported_checkpoint" : "invalid_checkpoint",
      `${label}: ${what} has type ${OTHER_TENSOR_TYPES[typeId] ?? typeId}; these are read: ${known.join(", ")}`,
    );
  }
  const values = shape.reduce((product, size) => product * size, 1);
  const row = shape.at(-1) as number;
  if (values < 1 || values > Number.MAX_SAFE_INTEGER || row % type.block !== 0) {
    throw fail(
      "invalid_checkpoint",
      `${label}: ${what} has shape [${shape.join(", ")}], impossible for type ${type.name} (blocks of ${type.block})`,
    );
  }
  return { name, type: type.name, shape, offset, bytes: (values / type.block) * type.bytes };
}

/** Turns offsets into file offsets, checking alignment, the end of the file and overlaps. */
function placeTensors(
  relative: readonly GgufTensor[],
  dataStart: number,
  alignment: number,
  fileBytes: number,
  label: string,
): Map<string, GgufTensor> {
  const placed = new Map<string, GgufTensor>();
  for (const tensor of relative) {
    const offset = dataStart + tensor.offset;
    if (tensor.offset % alignment !== 0) {
      throw fail("invalid_checkpoint", `${label}: tensor ${quote(tensor.name)} is not aligned to ${alignment} bytes`);
    }
    if (offset + tensor.bytes > fileBytes) {
      throw fail(
        "invalid_checkpoint",
        `${label}: tensor ${quote(tensor.name)} ends at byte ${offset + tensor.bytes}, the file at ${fileBytes}; the file is truncated or broken`,
      );
    }
    placed.set(tensor.name, { ...tensor, offset });
  }
  let end = dataStart;
  let previous = "";
  for (const tensor of [...placed.values()].sort((a, b) => a.offset - b.offset)) {
    if (tensor.offset < end) {
      throw fail("invalid_checkpoint", `${label}: tensors ${quote(previous)} and ${quote(tensor.name)} overlap`);
    }
    end = tensor.offset + tensor.bytes;
    previous = tensor.name;
  }
  return placed;
}
