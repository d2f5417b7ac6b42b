import { readFile, stat } from "node:fs/promises";
import type { CliContext } from "./context.ts";
import { CliError, usage } from "./errors.ts";

/** Larger than any context: a mistaken file (a checkpoint, a log) is refused before it is read. */
const MAX_TEXT_BYTES = 32 * 1024 * 1024;

/** Texts a command can take: by option, from a file, or as fields of a JSON object on standard input. */
export type TextField = "question" | "solution" | "explanation" | "completion";
export type Texts = Partial<Record<TextField, string>>;

/**
 * Resolves text options: plain text stands for itself, `@path` reads a file, `-` reads standard input, `@@…` is text that
 * begins with @. Fields given by no option come from a JSON object on standard input, if there is one.
 */
export async function resolveTexts(
  options: Texts,
  fields: readonly TextField[],
  required: readonly TextField[],
  context: CliContext,
): Promise<Texts> {
  const texts: Texts = {};
  const fromInput = fields.filter((field) => options[field] === "-");
  if (fromInput.length > 1) throw usage(`Only one of ${fromInput.map((f) => `--${f}`).join(", ")} can be "-".`);
  for (const field of fields) {
    const given = options[field];
    if (given !== undefined) texts[field] = await resolveOne(field, given, context);
  }
  const missing = () => required.filter((field) => texts[field] === undefined);
  if (missing().length > 0 && fromInput.length === 0) Object.assign(texts, await jsonFields(texts, fields, context));
  if (missing().length > 0) {
    const names = missing().map((field) => `--${field}`);
    throw usage(
      `${names.join(" and ")} missing: give the text, @file, or - for standard input; or pipe a JSON object with ${missing().join(" and ")}.`,
    );
  }
  return texts;
}

async function resolveOne(field: TextField, given: string, context: CliContext): Promise<string> {
  if (given === "-") {
    const text = await context.readInput();
    if (text === undefined)
      throw usage(`--${field} - reads standard input, which is a terminal here; pipe the text in.`);
    return text;
  }
  if (given.startsWith("@@")) return given.slice(1);
  return given.startsWith("@") ? await readTextFile(given.slice(1)) : given;
}

async function readTextFile(path: string): Promise<string> {
  try {
    const info = await stat(path);
    if (info.size > MAX_TEXT_BYTES) throw new CliError(`${path} has more than 32 MiB; that is no text for a model.`);
    return decode(await readFile(path), path);
  } catch (error) {
    if (error instanceof CliError) throw error;
    const code = (error as NodeJS.ErrnoException).code;
    const why =
      code === "ENOENT" ? "there is no such file" : code === "EISDIR" ? "it is a directory" : `it failed (${code})`;
    throw new CliError(`Cannot read ${path}: ${why}. (Text that begins with @ is written @@.)`);
  }
}

function decode(bytes: Buffer, path: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new CliError(`${path} is not UTF-8 text.`);
  }
}

async function jsonFields(texts: Texts, fields: readonly TextField[], context: CliContext): Promise<Texts> {
  const input = await context.readInput();
  if (input === undefined || input.trim() === "") return {};
  let object: unknown;
  try {
    object = JSON.parse(input);
  } catch {
    throw usage('Standard input is not a JSON object such as {"question": "…", "solution": "…"}.');
  }
  if (typeof object !== "object" || object === null || Array.isArray(object)) {
    throw usage('Standard input holds JSON, but not an object such as {"question": "…", "solution": "…"}.');
  }
  const found: Texts = {};
  for (const field of fields) {
    const value = (object as Record<string, unknown>)[field];
    if (texts[field] !== undefined || value === undefined) continue;
    if (typeof value !== "string") throw usage(`"${field}" on standard input is not a string.`);
    found[field] = value;
  }
  return found;
}
