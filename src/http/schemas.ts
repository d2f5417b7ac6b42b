/** Pieces that the schemas of all resources share. */
import { z } from "@hono/zod-openapi";
import { CATALOGUE, type ErrorCode } from "../errors.ts";

const MAX_METADATA_PAIRS = 16;
const MAX_METADATA_KEY = 64;
const MAX_METADATA_VALUE = 512;

/** Strings by string, small enough to be stored with every row and echoed in every list. */
export const metadataSchema = bounded(
  z.record(z.string(), z.string().max(MAX_METADATA_VALUE)),
  (value) => unfitMetadata(value) ?? false,
).openapi({
  maxProperties: MAX_METADATA_PAIRS,
  description: "Up to 16 pairs of the caller's own; keys up to 64 characters, values up to 512.",
  example: { course: "algebra" },
});

export type Metadata = Record<string, string>;

/** The id a caller chooses for a teacher or student. `@` is left out: it separates a version. */
export const slugSchema = z
  .string()
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/,
    "must be 1 to 64 letters, digits, dots, dashes or underscores and begin with a letter or digit",
  )
  .openapi({ description: "The name you choose.", example: "smollm2" });

/** A registered model by name, wherever a teacher or student is named: `smollm2`, `smollm2@3`, `smollm2@ckpt_…`. */
export const modelNameSchema = z
  .string()
  .min(1, "must not be empty")
  .max(160)
  .openapi({ description: "A registered model, optionally with a version: `id` or `id@3`.", example: "smollm2" });

/** Which weights something was made with. */
export const namedVersionSchema = z.object({
  id: z.string(),
  version: z.int().openapi({ description: "Of a checkpoint: the version that it was trained from." }),
  checkpoint: z.string().optional().openapi({ description: "Where one was named (`id@ckpt_…`)." }),
});

/** Unix seconds. */
export const timestampSchema = z.int().openapi({ description: "Unix time in seconds.", example: 1767225600 });

/** Milliseconds or a Date → unix seconds, rounded down. */
export function unixSeconds(time: Date | number): number {
  return Math.floor(Number(time) / 1000);
}

export const errorSchema = z
  .object({
    error: z.object({
      message: z.string().openapi({ description: "What happened and what to do next." }),
      type: z.enum([...new Set(Object.values(CATALOGUE).map(([, type]) => type))] as [string, ...string[]]),
      param: z.string().nullable().openapi({ description: "Path of the offending field, e.g. `items.0.question`." }),
      code: z.enum(Object.keys(CATALOGUE) as [ErrorCode, ...ErrorCode[]]),
      lines: z
        .array(z.object({ line: z.int(), reason: z.string() }))
        .optional()
        .openapi({ description: "With `invalid_dataset`: the first bad lines of a file (or rows of a body), from 1." }),
    }),
  })
  .openapi("Error");

/** `request: { body: jsonBody(schema) }`. Required, because an optional body skips validation when it is absent. */
export function jsonBody<T extends z.ZodType>(schema: T, description?: string) {
  return {
    required: true as const,
    content: { "application/json": { schema } },
    ...(description ? { description } : {}),
  };
}

/** `responses: { 200: jsonResponse(schema, "The teacher") }` */
export function jsonResponse<T extends z.ZodType>(schema: T, description: string) {
  return { description, content: { "application/json": { schema } } };
}

/** A route that answers JSON, or server-sent events when asked to stream. */
export function jsonOrEvents<T extends z.ZodType>(schema: T, description: string) {
  return {
    description,
    content: { "application/json": { schema }, "text/event-stream": { schema: z.string() } },
  };
}

/**
 * An array whose length is judged before its elements. zod looks at every element first and remembers every fault: a
 * few megabytes of wrong elements would hold the server for many seconds and gigabytes. Use it in every request body.
 */
export function boundedArray<T extends z.ZodType>(item: T, limits: { min?: number; max: number }) {
  const { min = 0, max } = limits;
  return bounded(z.array(item).min(min).max(max), (value) =>
    Array.isArray(value) && value.length > max ? `at most ${max} items, got ${value.length}` : false,
  );
}

/** Highest id any tokenizer has; the model's own limit is checked where the model is known. */
const MAX_TOKEN_ID = 2 ** 31 - 1;

/** Token ids: one fault at most, whatever the length, and no cost per element beyond one comparison. */
export function tokenIds(limits: { min?: number; max: number }) {
  const { min = 0, max } = limits;
  return z
    .custom<number[]>()
    .superRefine((ids, ctx) => {
      const refuse = (message: string, path: number[] = []): void => ctx.addIssue({ code: "custom", message, path });
      if (!Array.isArray(ids))
        return ctx.addIssue({ code: "invalid_type", expected: "array", input: ids, continue: false });
      if (ids.length < min) return refuse(`at least ${min} token ids, got ${ids.length}`);
      if (ids.length > max) return refuse(`at most ${max} token ids, got ${ids.length}`);
      const bad = ids.findIndex((id) => !Number.isInteger(id) || id < 0 || id > MAX_TOKEN_ID);
      if (bad >= 0) refuse("expected a token id (an integer from 0)", [bad]);
    })
    .openapi({ type: "array", items: { type: "integer", minimum: 0 }, minItems: min, maxItems: max });
}

/** Runs `tooBig` before the schema; what it returns is the message. */
function bounded<T extends z.ZodType>(schema: T, tooBig: (value: unknown) => string | false) {
  return z.preprocess((value, ctx) => {
    const message = tooBig(value);
    if (message) ctx.issues.push({ code: "custom", message, input: value });
    return value;
  }, schema);
}

/** What is wrong with the keys; zod's own words for them say nothing, and it drops `__proto__` in silence. */
function unfitMetadata(value: unknown): string | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const keys = Object.keys(value);
  if (keys.length > MAX_METADATA_PAIRS) return `at most ${MAX_METADATA_PAIRS} pairs`;
  if (keys.some((key) => key === "" || key.length > MAX_METADATA_KEY))
    return `keys must have 1 to ${MAX_METADATA_KEY} characters`;
  if (keys.includes("__proto__")) return "__proto__ cannot be a key; choose another name";
  return undefined;
}
