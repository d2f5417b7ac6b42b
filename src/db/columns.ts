import { customType } from "drizzle-orm/pg-core";

/** First code point of the private use area: it all but never occurs in real text, so stored text stays readable. */
const ESCAPE = "\uE000";
/** What PostgreSQL cannot store: U+0000 and lone surrogates; and the escape itself, so that decoding is exact. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: U+0000 is the point
const UNSTORABLE = /[\u0000\uE000\p{Surrogate}]/gu;
const ESCAPED = /\uE000([0-9a-f]{4})/g;

/** Any JavaScript string → one that PostgreSQL stores; equal strings stay equal, so comparisons work on both. */
export function escapeText(value: string): string {
  return value.replace(UNSTORABLE, (unit) => ESCAPE + unit.charCodeAt(0).toString(16).padStart(4, "0"));
}

export function unescapeText(value: string): string {
  return value.replace(ESCAPED, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

/**
 * `text` that gives back every JavaScript string as it was. PostgreSQL refuses U+0000 and its driver turns lone
 * surrogates into U+FFFD, yet both arrive in JSON bodies; they are escaped on the way in and out. All text columns use
 * it, ids too: looking up an id with a NUL in it finds nothing instead of failing.
 */
export const exactText = customType<{ data: string; driverData: string }>({
  dataType: () => "text",
  toDriver: escapeText,
  fromDriver: unescapeText,
});

/**
 * A document that is stored and read whole. `json`, not `jsonb`: it keeps key order, takes `\u0000` and lone surrogates
 * (JSON.stringify writes both as escapes) and numbers verbatim. Drizzle's own json columns parse a stored string twice,
 * so that the format "5" would come back as a number; this one leaves what the drivers have already parsed alone.
 */
export const document = customType<{ data: unknown; driverData: unknown }>({
  dataType: () => "json",
  toDriver: (value) => JSON.stringify(value),
});

/** Caller's key–value pairs; `jsonb`, because lists are filtered by them (`@>`). */
export const metadataColumn = customType<{ data: Record<string, string>; driverData: unknown }>({
  dataType: () => "jsonb",
  toDriver: (value) => JSON.stringify(mapPairs(value, escapeText)),
  fromDriver: (value) => mapPairs(value as Record<string, string>, unescapeText),
});

/** Numbers by name; `jsonb`, because new ones are merged into it (`||`). */
export const numbersColumn = customType<{ data: Record<string, number | null>; driverData: unknown }>({
  dataType: () => "jsonb",
  toDriver: (value) => JSON.stringify(mapNames(value, escapeText)),
  fromDriver: (value) => mapNames(value as Record<string, number | null>, unescapeText),
});

function mapPairs(pairs: Record<string, string>, map: (text: string) => string): Record<string, string> {
  return Object.fromEntries(Object.entries(pairs).map(([key, value]) => [map(key), map(value)]));
}

function mapNames<Value>(named: Record<string, Value>, map: (text: string) => string): Record<string, Value> {
  return Object.fromEntries(Object.entries(named).map(([name, value]) => [map(name), value]));
}
