import { fail } from "../../errors.ts";
import type { BufferedReader } from "./buffered-reader.ts";
import { MAX_ARRAY_LENGTH, MAX_KEYS, VALUE, VALUE_BYTES } from "./format.ts";

/** 64-bit integers beyond 2^53 lose precision; no key we use has such values. Arrays of arrays are not read. */
export type MetadataValue = number | boolean | string | readonly string[] | readonly number[] | readonly boolean[];

export type RawMetadata = ReadonlyMap<string, MetadataValue>;

export function readMetadata(reader: BufferedReader, count: number, label: string): RawMetadata {
  // A key takes at least 8 (length) + 4 (type) + 1 (value) bytes, so a lying count ends here.
  if (count > MAX_KEYS) throw fail("invalid_checkpoint", `${label}: claims to have ${count} metadata keys`);
  reader.demand(count * 13, "the metadata");
  const metadata = new Map<string, MetadataValue>();
  for (let i = 0; i < count; i++) {
    const key = reader.string(`the name of metadata key ${i}`);
    if (metadata.has(key)) throw fail("invalid_checkpoint", `${label}: metadata key ${quote(key)} occurs twice`);
    const type = reader.u32(`the type of ${quote(key)}`);
    const value = type === VALUE.array ? readArray(reader, key, label) : readScalar(reader, type, key, label);
    metadata.set(key, value);
  }
  return metadata;
}

function readScalar(reader: BufferedReader, type: number, key: string, label: string): number | boolean | string {
  if (type === VALUE.string) return reader.string(`metadata key ${quote(key)}`);
  const width = VALUE_BYTES[type];
  if (width === undefined) {
    throw fail("invalid_checkpoint", `${label}: metadata key ${quote(key)} has the unknown type ${type}`);
  }
  return decodeScalar(reader.bytes(width, `metadata key ${quote(key)}`), 0, type);
}

function readArray(
  reader: BufferedReader,
  key: string,
  label: string,
): readonly string[] | readonly number[] | readonly boolean[] {
  const what = `metadata key ${quote(key)}`;
  const type = reader.u32(what);
  const length = reader.size(`the length of ${what}`);
  if (length > MAX_ARRAY_LENGTH) throw fail("invalid_checkpoint", `${label}: ${what} claims ${length} entries`);
  if (type === VALUE.string) {
    reader.demand(length * 8, what);
    const strings: string[] = [];
    for (let i = 0; i < length; i++) strings.push(reader.string(what));
    return strings;
  }
  const width = VALUE_BYTES[type];
  if (width === undefined) throw fail("invalid_checkpoint", `${label}: ${what} is an array of unknown type ${type}`);
  const view = reader.bytes(length * width, what);
  const values: (number | boolean)[] = [];
  for (let i = 0; i < length; i++) values.push(decodeScalar(view, i * width, type));
  return values as number[] | boolean[];
}

function decodeScalar(view: DataView, offset: number, type: number): number | boolean {
  switch (type) {
    case VALUE.uint8:
      return view.getUint8(offset);
    case VALUE.int8:
      return view.getInt8(offset);
    case VALUE.uint16:
      return view.getUint16(offset, true);
    case VALUE.int16:
      return view.getInt16(offset, true);
    case VALUE.uint32:
      return view.getUint32(offset, true);
    case VALUE.int32:
      return view.getInt32(offset, true);
    case VALUE.float32:
      return view.getFloat32(offset, true);
    case VALUE.bool:
      return view.getUint8(offset) !== 0;
    case VALUE.uint64:
      return Number(view.getBigUint64(offset, true));
    case VALUE.int64:
      return Number(view.getBigInt64(offset, true));
    default:
      return view.getFloat64(offset, true);
  }
}

/** Names from a file may be long or contain control characters; messages show them bounded and escaped. */
export function quote(name: string): string {
  return JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}…` : name);
}
