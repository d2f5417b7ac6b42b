/** A small GGUF writer for tests, from the format's specification. Makes files that are right, or wrong on purpose. */
import { TENSOR_TYPES, type TensorTypeName, VALUE } from "../../../src/model/gguf/format.ts";

/** A metadata value with its GGUF type; `array` names the type of its entries. */
export type GgufValue =
  | { type: Exclude<keyof typeof VALUE, "array">; value: number | bigint | boolean | string }
  | { type: "array"; of: Exclude<keyof typeof VALUE, "array">; value: readonly (number | boolean | string)[] };

export interface GgufTensorSpec {
  name: string;
  type: TensorTypeName | number;
  /** Slowest dimension first, as in Hugging Face files. */
  shape: readonly number[];
  data: Uint8Array;
  /** Written instead of the right offset. */
  offset?: bigint;
}

export interface GgufSpec {
  metadata: Readonly<Record<string, GgufValue>>;
  tensors: readonly GgufTensorSpec[];
  version?: number;
  /** Written instead of the right counts. */
  tensorCount?: bigint;
  keyCount?: bigint;
}

const ALIGNMENT = 32;

export const u32 = (value: number): GgufValue => ({ type: "uint32", value });
export const f32 = (value: number): GgufValue => ({ type: "float32", value });
export const bool = (value: boolean): GgufValue => ({ type: "bool", value });
export const text = (value: string): GgufValue => ({ type: "string", value });
export const texts = (value: readonly string[]): GgufValue => ({ type: "array", of: "string", value });
export const i32s = (value: readonly number[]): GgufValue => ({ type: "array", of: "int32", value });
export const f32s = (value: readonly number[]): GgufValue => ({ type: "array", of: "float32", value });

export function encodeGguf(spec: GgufSpec): Uint8Array {
  const parts: Uint8Array[] = [
    Buffer.from("GGUF"),
    scalar("uint32", spec.version ?? 3),
    scalar("uint64", spec.tensorCount ?? BigInt(spec.tensors.length)),
    scalar("uint64", spec.keyCount ?? BigInt(Object.keys(spec.metadata).length)),
  ];
  for (const [key, entry] of Object.entries(spec.metadata)) {
    parts.push(scalar("string", key), scalar("uint32", VALUE[entry.type]));
    if (entry.type === "array") {
      parts.push(scalar("uint32", VALUE[entry.of]), scalar("uint64", BigInt(entry.value.length)));
      for (const value of entry.value) parts.push(scalar(entry.of, value));
    } else {
      parts.push(scalar(entry.type, entry.value));
    }
  }
  let offset = 0;
  for (const tensor of spec.tensors) {
    parts.push(scalar("string", tensor.name), scalar("uint32", tensor.shape.length));
    for (const size of [...tensor.shape].reverse()) parts.push(scalar("uint64", BigInt(size)));
    parts.push(scalar("uint32", typeof tensor.type === "number" ? tensor.type : typeId(tensor.type)));
    parts.push(scalar("uint64", tensor.offset ?? BigInt(offset)));
    offset += padded(tensor.data.length);
  }
  const header = Buffer.concat(parts);
  const body = spec.tensors.map((tensor) => {
    const data = Buffer.alloc(padded(tensor.data.length));
    data.set(tensor.data);
    return data;
  });
  return Buffer.concat([header, Buffer.alloc(padded(header.length) - header.length), ...body]);
}

function padded(length: number): number {
  return Math.ceil(length / ALIGNMENT) * ALIGNMENT;
}

function typeId(name: TensorTypeName): number {
  return Number(Object.entries(TENSOR_TYPES).find(([, type]) => type.name === name)?.[0]);
}

function scalar(type: Exclude<keyof typeof VALUE, "array">, value: number | bigint | boolean | string): Uint8Array {
  const buffer = Buffer.alloc(8);
  switch (type) {
    case "string": {
      const bytes = Buffer.from(String(value));
      return Buffer.concat([scalar("uint64", BigInt(bytes.length)), bytes]);
    }
    case "bool":
    case "uint8":
      buffer.writeUInt8(Number(value));
      return buffer.subarray(0, 1);
    case "int8":
      buffer.writeInt8(Number(value));
      return buffer.subarray(0, 1);
    case "uint16":
      buffer.writeUInt16LE(Number(value));
      return buffer.subarray(0, 2);
    case "int16":
      buffer.writeInt16LE(Number(value));
      return buffer.subarray(0, 2);
    case "uint32":
      buffer.writeUInt32LE(Number(value));
      return buffer.subarray(0, 4);
    case "int32":
      buffer.writeInt32LE(Number(value));
      return buffer.subarray(0, 4);
    case "float32":
      buffer.writeFloatLE(Number(value));
      return buffer.subarray(0, 4);
    case "uint64":
      buffer.writeBigUInt64LE(BigInt(value));
      return buffer;
    case "int64":
      buffer.writeBigInt64LE(BigInt(value));
      return buffer;
    case "float64":
      buffer.writeDoubleLE(Number(value));
      return buffer;
  }
}
