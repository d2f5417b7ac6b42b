import { fail } from "../../errors.ts";
import { type MetadataValue, quote } from "./metadata.ts";
import type { GgufFile } from "./reader.ts";

/** Typed access to metadata; a key of the wrong kind is an `invalid_checkpoint` that names it. */
export interface MetadataFields {
  has(key: string): boolean;
  string(key: string): string | undefined;
  boolean(key: string): boolean | undefined;
  /** A finite number. */
  number(key: string): number | undefined;
  /** A positive integer; an array counts when all its entries are equal (some files state one number per layer). */
  size(key: string): number | undefined;
  requiredSize(key: string): number;
  requiredNumber(key: string): number;
  strings(key: string): readonly string[] | undefined;
  numbers(key: string): readonly number[] | undefined;
}

export function metadataFields(file: GgufFile): MetadataFields {
  const { metadata, label } = file;
  const wrong = (key: string, expected: string): never => {
    throw fail("invalid_checkpoint", `${label}: metadata key ${quote(key)} is not ${expected}`);
  };
  function read<T extends MetadataValue>(key: string, is: (value: MetadataValue) => value is T, expected: string) {
    const value = metadata.get(key);
    if (value === undefined) return undefined;
    return is(value) ? value : wrong(key, expected);
  }
  function required<T>(value: T | undefined, key: string): T {
    if (value === undefined) throw fail("invalid_checkpoint", `${label}: metadata key ${quote(key)} is missing`);
    return value;
  }
  const number = (key: string) =>
    read(key, (value): value is number => typeof value === "number" && Number.isFinite(value), "a finite number");
  function size(key: string): number | undefined {
    const raw = metadata.get(key);
    const value = Array.isArray(raw) && raw.length > 0 && raw.every((each) => each === raw[0]) ? raw[0] : raw;
    if (value === undefined) return undefined;
    if (typeof value === "number" && Number.isInteger(value) && value > 0 && value < 2 ** 31) return value;
    if (Array.isArray(raw)) {
      throw fail("unsupported_checkpoint", `${label}: ${quote(key)} differs from layer to layer, which is not built`);
    }
    return wrong(key, "a positive integer");
  }
  return {
    has: (key) => metadata.has(key),
    string: (key) => read(key, (value) => typeof value === "string", "a string"),
    boolean: (key) => read(key, (value) => typeof value === "boolean", "true or false"),
    number,
    size,
    requiredSize: (key) => required(size(key), key),
    requiredNumber: (key) => required(number(key), key),
    strings: (key) => read(key, isArrayOf("string"), "an array of strings"),
    numbers: (key) => read(key, isArrayOf("number"), "an array of numbers"),
  };
}

/** Arrays have one type in the file, so the first entry speaks for all. */
function isArrayOf(type: "string"): (value: MetadataValue) => value is readonly string[];
function isArrayOf(type: "number"): (value: MetadataValue) => value is readonly number[];
function isArrayOf(type: "string" | "number") {
  return (value: MetadataValue): value is never =>
    Array.isArray(value) && (value.length === 0 || typeof value[0] === type);
}

/**
 * Metadata holds most fractions as 32-bit floats: 1e-5 comes out as 9.99999974e-6. This is the shortest decimal that
 * is the same 32-bit float, which is what the original config.json said.
 */
export function shortestFloat32(value: number): number {
  for (let digits = 1; digits < 10; digits++) {
    const shorter = Number(value.toPrecision(digits));
    if (Math.fround(shorter) === Math.fround(value)) return shorter;
  }
  return value;
}
