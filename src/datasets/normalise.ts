/** What a line holds → a row, or a sentence that says what is wrong with it. */
import { suggest } from "../suggest.ts";
import { answerParts, type Exchange, takeApart } from "./conversation.ts";
import { MAX_METADATA_DEPTH, MAX_ROW_ID_CHARACTERS, MAX_TEXT_CHARACTERS } from "./limits.ts";
import type { DatasetRow } from "./row.ts";

/** Names of each column, best first: where a row has several, the others are kept in its metadata. */
export const ALIASES = {
  question: ["question", "problem", "prompt"],
  solution: ["solution", "answer"],
  reasoning_trace: ["reasoning_trace", "reasoning", "explanation"],
} as const;
const CONVERSATIONS = ["conversations", "messages"] as const;
const KNOWN = [...Object.values(ALIASES).flat(), ...CONVERSATIONS];

type Values = Map<string, unknown>;

export function normalise(value: unknown): DatasetRow | string {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return `is ${kindOf(value)}, not an object: one row is {"question": …, "solution": …}`;
  }
  // null says the same as leaving a column out, as it does in every table.
  const values: Values = new Map(Object.entries(value).filter(([, field]) => field !== null));
  const exchange = takeExchange(values);
  if (typeof exchange === "string") return exchange;
  const texts = { question: "", solution: "", reasoning_trace: "" };
  for (const column of ["question", "solution", "reasoning_trace"] as const) {
    const text = exchange ? (exchange[column] ?? "") : takeText(values, column);
    if (typeof text !== "string") return text.fault;
    const fault = faultOf(text, column, values);
    if (fault !== undefined) return fault;
    texts[column] = text;
  }
  const id = takeId(values);
  if (typeof id === "object") return id.fault;
  const provenance = takeProvenance(values);
  if (typeof provenance === "string") return provenance;
  const metadata = takeMetadata(values);
  if (typeof metadata === "string") return metadata;
  return {
    ...(id === undefined ? {} : { id }),
    question: texts.question,
    solution: texts.solution,
    // White space is no reasoning; it would teach a student to think in blanks.
    ...(texts.reasoning_trace.trim() === "" ? {} : { reasoning_trace: texts.reasoning_trace }),
    ...(Object.keys(metadata).length === 0 ? {} : { metadata }),
    ...(provenance === undefined ? {} : { provenance }),
  };
}

/** A conversation counts where question and solution are not there by themselves; undefined: there is none. */
function takeExchange(values: Values): Exchange | string | undefined {
  const prompt = values.get("prompt");
  const completion = values.get("completion");
  if (Array.isArray(prompt) && Array.isArray(completion)) {
    values.delete("prompt");
    values.delete("completion");
    return named("prompt and completion", takeApart([...prompt, ...completion]));
  }
  const asked = ALIASES.question.some((name) => values.has(name));
  const answered = ALIASES.solution.some((name) => values.has(name));
  if (typeof prompt === "string" && typeof completion === "string" && !answered) {
    values.delete("prompt");
    values.delete("completion");
    return { question: prompt, ...answerParts(completion) };
  }
  const name = CONVERSATIONS.find((column) => values.has(column));
  if (name === undefined || (asked && answered)) return undefined;
  const turns = values.get(name);
  values.delete(name);
  // Part of the conversation, as a system turn is.
  values.delete("system");
  return named(name, takeApart(turns));
}

function named(name: string, result: Exchange | string): Exchange | string {
  return typeof result === "string" ? `${name} ${result}` : result;
}

function takeText(values: Values, column: keyof typeof ALIASES): string | { fault: string } {
  const name = ALIASES[column].find((alias) => values.has(alias));
  if (name === undefined) return "";
  const text = asText(values.get(name));
  values.delete(name);
  return text === undefined ? { fault: `${name} is not a text` } : text;
}

/** Whole numbers are what answers often are; others may have been changed by being read as a number. */
function asText(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  return Number.isSafeInteger(value) ? String(value) : undefined;
}

function faultOf(text: string, column: keyof typeof ALIASES, values: Values): string | undefined {
  if (text.length > MAX_TEXT_CHARACTERS) {
    return `${column} has ${text.length} characters; at most ${MAX_TEXT_CHARACTERS} are read`;
  }
  if (column === "reasoning_trace" || text.trim() !== "") return undefined;
  if (text !== "") return `${column} is empty`;
  const names = ALIASES[column].join(", ");
  const near = [...values.keys()].find(
    (name) => suggest(name, ALIASES[column]) !== undefined && !KNOWN.includes(name as never),
  );
  return `${column} is missing or empty (read from: ${names})${near === undefined ? "" : `; did you mean the column ${JSON.stringify(near.slice(0, 40))}?`}`;
}

function takeId(values: Values): string | undefined | { fault: string } {
  if (!values.has("id")) return undefined;
  const id = asText(values.get("id"));
  values.delete("id");
  if (id === undefined) return { fault: "id is neither a text nor a whole number" };
  if (id.trim() === "") return { fault: "id is empty" };
  if (id.length > MAX_ROW_ID_CHARACTERS) return { fault: `id has more than ${MAX_ROW_ID_CHARACTERS} characters` };
  return id;
}

/** Of a row that a job made, here or elsewhere; an own column of that name that is no such object is metadata like any other. */
function takeProvenance(values: Values): Record<string, unknown> | string | undefined {
  const given = parsed(values.get("provenance"));
  if (typeof given !== "object" || given === null || Array.isArray(given)) return undefined;
  values.delete("provenance");
  return depthWithin(given, MAX_METADATA_DEPTH)
    ? (given as Record<string, unknown>)
    : `provenance nests deeper than ${MAX_METADATA_DEPTH} levels`;
}

/** `metadata`, and every column that has no other place: nothing is dropped in silence. */
function takeMetadata(values: Values): Record<string, unknown> | string {
  const given = parsed(values.get("metadata"));
  values.delete("metadata");
  if (given !== undefined && (typeof given !== "object" || given === null || Array.isArray(given))) {
    return 'metadata is neither an object nor the JSON of one, such as {"source": "…"}';
  }
  const both = [...values.keys()].find((name) => Object.hasOwn(given ?? {}, name));
  if (both !== undefined) return `${JSON.stringify(both.slice(0, 40))} stands in metadata and as a column of its own`;
  // fromEntries, because assigning to "__proto__" would lose it.
  const metadata = Object.fromEntries([...Object.entries(given ?? {}), ...values]);
  return depthWithin(metadata, MAX_METADATA_DEPTH)
    ? metadata
    : `metadata nests deeper than ${MAX_METADATA_DEPTH} levels`;
}

/** Tables have no objects: there, and in our own Parquet, it stands as JSON. */
function parsed(given: unknown): unknown {
  if (typeof given !== "string") return given;
  try {
    return JSON.parse(given);
  } catch {
    return given;
  }
}

function depthWithin(value: unknown, levels: number): boolean {
  if (typeof value !== "object" || value === null) return true;
  return levels > 0 && Object.values(value).every((inner) => depthWithin(inner, levels - 1));
}

function kindOf(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "a list" : `a ${typeof value}`;
}
