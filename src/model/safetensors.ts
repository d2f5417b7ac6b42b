/**
 * Headers of safetensors files. The format: eight bytes N (little endian), N bytes of JSON
 * `{name: {dtype, shape, data_offsets: [begin, end]}}`, then the data without holes. Nothing in a header is believed:
 * what is returned lies inside the file, covers it exactly and has the length its shape says.
 * https://github.com/huggingface/safetensors#format
 */
import { type FileHandle, open } from "node:fs/promises";
import { fail } from "../errors.ts";
import type { Dtype, TensorLocation } from "./checkpoint.ts";
import { DTYPE_BYTES, isDtype } from "./dtype.ts";
import { isObject, parseJsonObject, show } from "./json.ts";

export interface SafetensorsFile {
  /** As the directory calls it; the hub's cache resolves it to another. */
  name: string;
  /** Resolved path and size in bytes. */
  path: string;
  bytes: number;
  tensors: ReadonlyMap<string, TensorLocation>;
  metadata: Readonly<Record<string, string>>;
  /** The header's JSON as it stands in the file, for hashing. */
  header: Uint8Array;
}

/** The largest real header is a few MB; the reference implementation stops at 100 MB, which parses into gigabytes. */
const MAX_HEADER_BYTES = 32 * 1024 * 1024;
/** Length field before the header. */
const PREFIX_BYTES = 8;

/** Errors: `invalid_checkpoint`, `unsupported_checkpoint` (a dtype), each naming the file. `path` is resolved and judged. */
export async function readSafetensorsHeader(path: string, name = path): Promise<SafetensorsFile> {
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    const header = await readHeaderBytes(file, size, name);
    const parsed = parseJsonObject(header, `the header of ${name}`, "invalid_checkpoint");
    refuseDuplicateKeys(header, name);
    const dataStart = PREFIX_BYTES + header.length;
    const tensors = new Map<string, TensorLocation>();
    for (const [tensor, entry] of Object.entries(parsed)) {
      if (tensor !== "__metadata__") tensors.set(tensor, parseEntry(path, name, tensor, entry, dataStart));
    }
    requireExactCover([...tensors], dataStart, size, name);
    return { name, path, bytes: size, tensors, metadata: parseMetadata(parsed.__metadata__), header };
  } finally {
    await file.close();
  }
}

async function readHeaderBytes(file: FileHandle, size: number, name: string): Promise<Uint8Array> {
  if (size < PREFIX_BYTES) {
    throw fail("invalid_checkpoint", `${name} is ${size} bytes long, too short for a safetensors file; fetch it again`);
  }
  const prefix = await readExactly(file, 0, PREFIX_BYTES, name);
  const length = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true);
  if (length > BigInt(size - PREFIX_BYTES)) {
    throw fail(
      "invalid_checkpoint",
      `${name} says its header is ${length} bytes long but the file has ${size} bytes: truncated, or not a safetensors file (a Git LFS pointer, perhaps)`,
    );
  }
  if (length > BigInt(MAX_HEADER_BYTES)) {
    throw fail("invalid_checkpoint", `${name} has a header of ${length} bytes; at most ${MAX_HEADER_BYTES} are read`);
  }
  return readExactly(file, PREFIX_BYTES, Number(length), name);
}

async function readExactly(file: FileHandle, offset: number, length: number, name: string): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await file.read(bytes, done, length - done, offset + done);
    if (bytesRead === 0) throw fail("invalid_checkpoint", `${name} ended while it was being read; fetch it again`);
    done += bytesRead;
  }
  return bytes;
}

function parseEntry(path: string, name: string, tensor: string, entry: unknown, dataStart: number): TensorLocation {
  const wrong = (problem: string) => fail("invalid_checkpoint", `tensor ${shorten(tensor)} in ${name}: ${problem}`);
  if (!isObject(entry)) throw wrong("its entry is not an object");
  const { dtype, shape, data_offsets: offsets } = entry;
  if (!isDtype(dtype)) {
    const shown = show(dtype);
    throw fail("unsupported_checkpoint", `tensor ${shorten(tensor)} in ${name}: dtype ${shown} is not supported`);
  }
  if (!isSizeList(shape)) throw wrong("shape must be a list of non-negative integers");
  if (!isSizeList(offsets) || offsets.length !== 2) throw wrong("data_offsets must be two non-negative integers");
  const [begin, end] = offsets as [number, number];
  const expected = byteLength(shape, dtype);
  if (expected === null) throw wrong(`shape [${shape.join(", ")}] is too large`);
  if (end < begin || end - begin !== expected) {
    throw wrong(`${dtype} [${shape.join(", ")}] takes ${expected} bytes but data_offsets span ${end - begin}`);
  }
  return { path, offset: dataStart + begin, bytes: expected, dtype, shape };
}

/** A tensor has few dimensions; a list of millions is an attack on memory. */
const MAX_DIMENSIONS = 16;

function isSizeList(value: unknown): value is number[] {
  return (
    Array.isArray(value) &&
    value.length <= MAX_DIMENSIONS &&
    value.every((n) => typeof n === "number" && Number.isSafeInteger(n) && n >= 0)
  );
}

/** Null when the product is not exact. */
function byteLength(shape: readonly number[], dtype: Dtype): number | null {
  let bytes = DTYPE_BYTES[dtype];
  for (const n of shape) {
    bytes *= n;
    if (!Number.isSafeInteger(bytes)) return null;
  }
  return bytes;
}

/** The tensors must follow one another from the end of the header to the end of the file: no overlap, no hole. */
function requireExactCover(tensors: [string, TensorLocation][], dataStart: number, size: number, name: string): void {
  tensors.sort(([, a], [, b]) => a.offset - b.offset || a.bytes - b.bytes);
  let position = dataStart;
  for (const [tensor, { offset, bytes }] of tensors) {
    if (offset + bytes > size) {
      throw fail(
        "invalid_checkpoint",
        `tensor ${shorten(tensor)} in ${name} ends at byte ${offset + bytes} but the file has ${size}: truncated, fetch it again`,
      );
    }
    if (offset !== position) {
      const problem = offset < position ? "overlaps the tensor before it" : "leaves a hole before it";
      throw fail("invalid_checkpoint", `tensor ${shorten(tensor)} in ${name} ${problem}: the header is damaged`);
    }
    position += bytes;
  }
  if (position !== size) {
    throw fail(
      "invalid_checkpoint",
      `${name} has ${size - position} bytes that belong to no tensor: the header is damaged`,
    );
  }
}

/** JSON.parse keeps the last of two equal keys without a word; two readers could then see two different models. */
function refuseDuplicateKeys(header: Uint8Array, name: string): void {
  const seen = new Set<string>();
  for (const key of topLevelKeys(header)) {
    if (seen.has(key)) throw fail("invalid_checkpoint", `the header of ${name} names ${shorten(key)} twice`);
    seen.add(key);
  }
}

const [QUOTE, BACKSLASH, COLON] = [0x22, 0x5c, 0x3a];
const [OPEN_BRACKET, CLOSE_BRACKET, OPEN_BRACE, CLOSE_BRACE] = [0x5b, 0x5d, 0x7b, 0x7d];

/** Keys of the outermost object of JSON that has already been parsed once (so it is well formed). */
function* topLevelKeys(json: Uint8Array): Generator<string> {
  let depth = 0;
  let lastString: [start: number, end: number] | null = null;
  for (let i = 0; i < json.length; i++) {
    const byte = json[i];
    if (byte === QUOTE) {
      const start = i++;
      while (json[i] !== QUOTE) i += json[i] === BACKSLASH ? 2 : 1;
      lastString = [start, i + 1];
    } else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) depth++;
    else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) depth--;
    else if (byte === COLON && depth === 1 && lastString !== null) {
      yield String(JSON.parse(new TextDecoder().decode(json.subarray(...lastString))));
    }
  }
}

function parseMetadata(value: unknown): Record<string, string> {
  const metadata: Record<string, string> = {};
  if (!isObject(value)) return metadata;
  for (const [key, text] of Object.entries(value)) {
    if (typeof text === "string" && key !== "__proto__") metadata[key] = text;
  }
  return metadata;
}

/** Names come from the file and end up in messages. */
function shorten(text: string): string {
  return text.length <= 120 ? text : `${text.slice(0, 120)}…`;
}
