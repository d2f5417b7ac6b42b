import { z } from "@hono/zod-openapi";
import { EXPORT_FORMATS } from "../../datasets/export.ts";
import { ALIASES } from "../../datasets/normalise.ts";
import { COLUMNS } from "../../datasets/row.ts";
import { FILE_FORMATS } from "../../datasets/upload.ts";
import { DEFAULT_LIST_LIMIT, listQuery, listSchema, MAX_LIST_LIMIT } from "../../http/list.ts";
import { boundedArray, metadataSchema, timestampSchema } from "../../http/schemas.ts";

/** A body of the default size holds fewer; what is longer is a file. */
const MAX_BODY_ROWS = 100_000;
const MAX_NAME = 200;

const nameSchema = z.string().trim().min(1).max(MAX_NAME).openapi({ example: "gsm8k-train" });

export const createDatasetSchema = z
  .strictObject({
    rows: boundedArray(z.unknown(), { min: 1, max: MAX_BODY_ROWS }).openapi({
      type: "array",
      items: {
        type: "object",
        properties: {
          question: { type: "string", description: `Or: ${ALIASES.question.slice(1).join(", ")}.` },
          solution: { type: "string", description: `Or: ${ALIASES.solution.slice(1).join(", ")}.` },
          reasoning_trace: { type: "string", description: `Or: ${ALIASES.reasoning_trace.slice(1).join(", ")}.` },
          id: { type: "string", description: "Unique within the dataset." },
          metadata: { type: "object", description: "Comes back on every row made from this one." },
          conversations: {
            type: "array",
            items: { type: "object" },
            description: "Instead of question and solution: one exchange as ShareGPT or chat messages (`messages`).",
          },
        },
      },
    }),
    name: nameSchema.optional(),
    metadata: metadataSchema.default({}),
  })
  .openapi("CreateDataset", { example: { name: "sums", rows: [{ question: "What is 2+3?", solution: "5" }] } });

export type CreateDataset = z.output<typeof createDatasetSchema>;

/** The fields beside the file of a form; `metadata` is JSON there. */
export const datasetFormSchema = z.strictObject({
  name: nameSchema.optional(),
  format: z.enum(FILE_FORMATS).optional(),
  metadata: z
    .string()
    .transform((text, ctx): unknown => {
      try {
        return JSON.parse(text);
      } catch {
        ctx.issues.push({ code: "custom", message: "is not valid JSON", input: text });
        return z.NEVER;
      }
    })
    .pipe(metadataSchema)
    .default({}),
});

/** Of the document alone: a form is read as it arrives (http/multipart.ts), not by a validator that holds it in memory. */
export const datasetFormDocument = {
  type: "object" as const,
  required: ["file"],
  properties: {
    file: { type: "string" as const, format: "binary", description: "JSON lines or CSV, UTF-8." },
    format: {
      type: "string" as const,
      enum: [...FILE_FORMATS],
      description: "Default: by the file's name, else by its type.",
    },
    name: { type: "string" as const, maxLength: MAX_NAME, description: "Default: the file's name." },
    metadata: { type: "string" as const, description: "A JSON object of texts." },
  },
};

export const datasetSchema = z
  .object({
    id: z.string().openapi({ example: "ds_3f9k…" }),
    object: z.literal("dataset"),
    created_at: timestampSchema,
    name: z.string().nullable(),
    content_hash: z.string().openapi({
      description: "Of the rows as `export?format=jsonl` gives them. Two datasets with the same rows have the same.",
      example: "sha256:…",
    }),
    rows: z.int(),
    bytes: z.int(),
    columns: z.array(z.enum(COLUMNS)).openapi({ description: "Those that at least one row has." }),
    duplicates: z.int().openapi({ description: "Rows whose question, letter by letter, stood in an earlier row." }),
    source: z.object({
      type: z.enum(["file", "rows", "job"]),
      format: z.enum(FILE_FORMATS).optional(),
      filename: z.string().optional(),
      bytes: z.int().optional(),
      job: z.string().optional().openapi({ description: "Which job made it." }),
      part: z.string().optional().openapi({ description: "What of the job it is: `output`, `errors`, …" }),
      dataset: z.string().optional().openapi({ description: "That it was made from." }),
      teacher: z.string().nullable().optional(),
      student: z.string().nullable().optional(),
    }),
    metadata: metadataSchema,
  })
  .openapi("Dataset");

export type DatasetResource = z.infer<typeof datasetSchema>;

export const datasetListSchema = listSchema("DatasetList", datasetSchema);
export const listDatasetsQuery = listQuery;

const rowSchema = z
  .object({
    object: z.literal("dataset.row"),
    row: z.int().openapi({ description: "From 0." }),
    id: z.string().optional(),
    question: z.string(),
    solution: z.string(),
    reasoning_trace: z.string().optional(),
    metadata: z.record(z.string(), z.unknown()).optional(),
  })
  .openapi("DatasetRow");

export type DatasetRowResource = z.infer<typeof rowSchema>;

export const rowListSchema = listSchema("DatasetRowList", rowSchema);

export const listRowsQuery = z.strictObject({
  after: z
    .string()
    .regex(/^\d{1,9}$/, "must be the number of a row")
    .transform(Number)
    .optional()
    .openapi({
      type: "string",
      description: "Number of the last row already seen (`last_id`); the page begins behind it.",
    }),
  limit: z.coerce.number().int().min(1).max(MAX_LIST_LIMIT).default(DEFAULT_LIST_LIMIT),
});

export const exportQuery = z.strictObject({
  format: z
    .enum(EXPORT_FORMATS)
    .default("jsonl")
    .openapi({
      description:
        "`jsonl`: the rows as they are stored. `prompt-completion`: TRL's conversational form. `chat-jsonl`: messages. " +
        "`sharegpt`: conversations. With reasoning, the last three write it and the solution in the tags of the format `stratos`.",
    }),
});
