/**
 * Conversion makes F32 of every quantised type. What a file was made of still says which precision keeps its numbers, so
 * the converted directory remembers it; directories converted before it did say nothing.
 */
import type { JsonObject } from "../json.ts";
import { TENSOR_TYPES, type TensorTypeName } from "./format.ts";
import type { GgufFile } from "./reader.ts";

/** Key of config.json; other programs ignore it. */
export const GGUF_TYPE_KEY = "preceptor_gguf_type";

/** The type of most weights of the matrices: vectors are F32 in every file, embedding and head often of another type. */
export function dominantType({ tensors }: Pick<GgufFile, "tensors">): TensorTypeName {
  const weights = new Map<TensorTypeName, number>();
  for (const { type, shape } of tensors.values()) {
    const [rows, columns] = shape;
    if (rows === undefined || columns === undefined) continue;
    weights.set(type, (weights.get(type) ?? 0) + rows * columns);
  }
  const [most] = [...weights].sort(([, a], [, b]) => b - a);
  return most?.[0] ?? "F32";
}

/** What config.json says of it. Whatever is no type says nothing: the file may come from anywhere. */
export function notedType(config: JsonObject): TensorTypeName | undefined {
  return Object.values(TENSOR_TYPES).find(({ name }) => name === config[GGUF_TYPE_KEY])?.name;
}
