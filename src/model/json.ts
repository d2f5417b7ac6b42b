/** JSON files of a model, read with a bound, and fields of them read with a check. */
import { readFile } from "node:fs/promises";
import { type ErrorCode, fail } from "../errors.ts";
import type { ModelDirectory } from "./paths.ts";

export type JsonObject = Record<string, unknown>;

/** The largest real one is a shard index of about 10 MB (hundreds of thousands of expert tensors). */
const MAX_JSON_BYTES = 32 * 1024 * 1024;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Any JSON value in a few characters, for messages; no more of it is looked at than is shown, however large or deep it is. */
export function show(value: unknown, length = 60): string {
  const text = beginning(value, length + 1);
  return text.length <= length ? text : `${text.slice(0, length)}…`;
}

/** JSON.stringify(value), or a beginning of it of at least `room` characters. Each level takes a character, so the depth is bounded. */
function beginning(value: unknown, room: number): string {
  if (typeof value === "string") return JSON.stringify(value.slice(0, room));
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "nothing";
  const left = (): number => Math.max(1, room - text.length);
  let text = Array.isArray(value) ? "[" : "{";
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length && text.length < room; i++)
      text += (i > 0 ? "," : "") + beginning(value[i], left());
    return text.length < room ? `${text}]` : text;
  }
  for (const key in value) {
    if (text.length >= room) return text;
    text += `${text.length > 1 ? "," : ""}${beginning(key, left())}:`;
    text += beginning((value as JsonObject)[key], left());
  }
  return `${text}}`;
}

/** Decodes and parses; `what` names the text in the error. */
export function parseJsonObject(bytes: Uint8Array, what: string, code: ErrorCode): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw fail(code, `${what} is not valid JSON in UTF-8; the file is damaged or incomplete, fetch it again`, {
      cause,
    });
  }
  if (!isObject(value)) throw fail(code, `${what} holds no JSON object`);
  return value;
}

/** A JSON object from a file of a model directory, with the raw bytes for hashing. */
export async function readJson(
  directory: ModelDirectory,
  name: string,
  code: ErrorCode = "invalid_checkpoint",
): Promise<{ value: JsonObject; bytes: Uint8Array }> {
  const file = await directory.file(name);
  if (file.bytes > MAX_JSON_BYTES) {
    throw fail(code, `${name} is ${file.bytes} bytes long; at most ${MAX_JSON_BYTES} are read`);
  }
  const bytes = await readFile(file.path);
  return { value: parseJsonObject(bytes, name, code), bytes };
}

/** Reads fields of a JSON object; messages name the file and the field. A field that is `null` counts as absent. */
export interface FieldReader {
  has(key: string): boolean;
  /** The key is there, be it with null. */
  declared(key: string): boolean;
  integer(key: string, options?: { fallback?: number | undefined; max?: number }): number;
  /** An integer ≥ 0. */
  count(key: string, fallback?: number): number;
  number(key: string, options?: { fallback?: number | undefined }): number;
  boolean(key: string, fallback: boolean): boolean;
  string(key: string, fallback?: string): string;
  object(key: string): FieldReader | null;
  raw(key: string): unknown;
  /** An `invalid_checkpoint` (or the reader's own code) naming the field. */
  wrong(key: string, problem: string): Error;
}

/** Sizes beyond this belong to no model, and their products must stay exact. */
const MAX_SIZE = 2 ** 27;

export function fieldReader(object: JsonObject, where: string, code: ErrorCode = "invalid_checkpoint"): FieldReader {
  const get = (key: string): unknown => (Object.hasOwn(object, key) ? (object[key] ?? undefined) : undefined);
  const wrong = (key: string, problem: string) => fail(code, `${where}: ${key} ${problem}`);

  const numeric = (key: string, fallback: number | undefined): number => {
    const value = get(key) ?? fallback;
    if (value === undefined) throw wrong(key, "is missing");
    if (typeof value !== "number" || !Number.isFinite(value) || value <= 0) {
      throw wrong(key, `is ${show(value)}; it must be a number above 0`);
    }
    return value;
  };

  return {
    has: (key) => get(key) !== undefined,
    declared: (key) => Object.hasOwn(object, key),
    raw: get,
    wrong,
    number: (key, options = {}) => numeric(key, options.fallback),
    integer(key, options = {}) {
      const value = numeric(key, options.fallback);
      const max = options.max ?? MAX_SIZE;
      if (!Number.isInteger(value) || value > max) {
        throw wrong(key, `is ${show(value)}; it must be an integer from 1 to ${max}`);
      }
      return value;
    },
    count(key, fallback) {
      const value = get(key) ?? fallback;
      if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
        throw wrong(key, `is ${show(value)}; it must be an integer of at least 0`);
      }
      return value;
    },
    boolean(key, fallback) {
      const value = get(key) ?? fallback;
      if (typeof value !== "boolean") throw wrong(key, `is ${show(value)}; it must be true or false`);
      return value;
    },
    string(key, fallback) {
      const value = get(key) ?? fallback;
      if (typeof value !== "string")
        throw wrong(key, value === undefined ? "is missing" : `is ${show(value)}; it must be a string`);
      return value;
    },
    object(key) {
      const value = get(key);
      if (value === undefined) return null;
      if (!isObject(value)) throw wrong(key, `is ${show(value)}; it must be an object`);
      return fieldReader(value, `${where}: ${key}`, code);
    },
  };
}
