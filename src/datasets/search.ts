/** Which rows have some metadata: `key:value`, several with a comma between them. */
import { fail } from "../errors.ts";
import type { Dataset } from "./dataset.ts";
import type { DatasetRow } from "./row.ts";

export interface Condition {
  key: string;
  value: string;
}

/** More would be a query language. */
const MAX_CONDITIONS = 16;

/** A backslash takes the meaning from a comma, a colon or a backslash behind it. Throws `invalid_value`. */
export function parseConditions(text: string): Condition[] {
  const parts = text.match(/(?:\\.|[^\\,])+/gs) ?? [];
  const conditions = parts.map((part) => {
    const [, key, value] = /^((?:\\.|[^\\:])+):(.*)$/s.exec(part) ?? [];
    if (key === undefined || value === undefined) {
      throw fail("invalid_value", `${JSON.stringify(part.slice(0, 60))} is not key:value`, { param: "metadata" });
    }
    return { key: unescaped(key), value: unescaped(value) };
  });
  if (conditions.length > 0 && conditions.length <= MAX_CONDITIONS) return conditions;
  throw fail("invalid_value", `write 1 to ${MAX_CONDITIONS} conditions as key:value,key:value`, { param: "metadata" });
}

const unescaped = (text: string): string => text.trim().replaceAll(/\\(.)/gs, "$1");

/** A key is a name or, where there is none, a path: `preceptor.score`. A list has a value when one of its items is it. */
export function hasMetadata(row: DatasetRow, conditions: readonly Condition[]): boolean {
  return conditions.every(({ key, value }) => {
    const found = lookUp(row.metadata, key);
    return (Array.isArray(found) ? found : [found]).some((item) => item !== undefined && textOf(item) === value);
  });
}

function lookUp(value: unknown, key: string): unknown {
  if (typeof value !== "object" || value === null) return undefined;
  if (Object.hasOwn(value, key)) return (value as Record<string, unknown>)[key];
  for (let dot = key.indexOf("."); dot !== -1; dot = key.indexOf(".", dot + 1)) {
    const head = key.slice(0, dot);
    if (!Object.hasOwn(value, head)) continue;
    const found = lookUp((value as Record<string, unknown>)[head], key.slice(dot + 1));
    if (found !== undefined) return found;
  }
  return undefined;
}

const textOf = (item: unknown): string => (typeof item === "object" ? JSON.stringify(item) : String(item));

/** A stored line and the row's number. */
export interface FoundLine {
  row: number;
  line: Buffer;
}

/** The rows from `from` on that meet the conditions, in their order; every line is read, few are parsed. */
export async function* searchLines(
  dataset: Dataset,
  conditions: readonly Condition[],
  from: number,
): AsyncGenerator<FoundLine> {
  // Lines are JSON that we wrote: a value that is there stands in it as JSON writes it.
  const needles = conditions
    .filter(({ value }) => !/^[{[]/.test(value))
    .map(({ value }) => Buffer.from(JSON.stringify(value).slice(1, -1)));
  let row = from;
  for await (const line of dataset.lines(from)) {
    const possible = needles.every((needle) => line.includes(needle));
    if (possible && hasMetadata(JSON.parse(line.toString("utf8")) as DatasetRow, conditions)) yield { row, line };
    row++;
  }
}
