/** Values of Parquet → values of JSON. */
import { DEFAULT_PARSERS } from "hyparquet/src/convert.js";
import { decodeUtf8 } from "../jsonl.ts";

/** Stands where a value cannot be read; its row has a fault, and the others have none. */
class Broken {
  readonly reason: string;
  constructor(reason: string) {
    this.reason = reason;
  }
}

export const PARSERS = {
  ...DEFAULT_PARSERS,
  stringFromBytes: textOf,
  jsonFromBytes(bytes: Uint8Array): unknown {
    const text = textOf(bytes);
    if (typeof text !== "string") return text;
    try {
      return JSON.parse(text);
    } catch {
      return new Broken("is not valid JSON");
    }
  },
};

// biome-ignore lint/suspicious/noExplicitAny: in the place of a text there may be none, or a Broken
function textOf(bytes: Uint8Array): any {
  // A null of an optional column.
  if (bytes === undefined) return undefined;
  return decodeUtf8(bytes) ?? new Broken("is not valid UTF-8");
}

/** The row as JSON holds it, or a sentence that names the column whose value cannot be read. */
export function toRow(names: readonly string[], values: readonly unknown[]): Record<string, unknown> | string {
  const entries: [string, unknown][] = [];
  for (const [i, name] of names.entries()) {
    const value = toJson(values[i]);
    if (value instanceof Broken) return `${name.slice(0, 60)} ${value.reason}`;
    entries.push([name, value]);
  }
  // fromEntries, because assigning to "__proto__" would lose it.
  return Object.fromEntries(entries);
}

/** Whole numbers beyond what JSON's readers keep become texts, times ISO 8601, missing numbers (NaN) null. */
function toJson(value: unknown): unknown {
  if (typeof value === "bigint") return Number.isSafeInteger(Number(value)) ? Number(value) : String(value);
  if (typeof value === "number") return Number.isFinite(value) ? value : Number.isNaN(value) ? null : String(value);
  if (typeof value !== "object" || value === null) return value ?? null;
  if (value instanceof Broken) return value;
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
  if (value instanceof Uint8Array) return decodeUtf8(value) ?? new Broken("is binary, not a text");
  if (Array.isArray(value) || ArrayBuffer.isView(value)) {
    const items = Array.from(value as ArrayLike<unknown>, toJson);
    return items.find((item) => item instanceof Broken) ?? items;
  }
  const entries = Object.entries(value).map(([key, item]): [string, unknown] => [key, toJson(item)]);
  return entries.find(([, item]) => item instanceof Broken)?.[1] ?? Object.fromEntries(entries);
}
