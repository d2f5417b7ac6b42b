import { z } from "@hono/zod-openapi";
import { EXPORT_FORMATS } from "../../datasets/export.ts";
import { DEFAULT_NEAR_THRESHOLD, MIN_NEAR_THRESHOLD } from "../../datasets/minhash.ts";
import { DEFAULT_NGRAM } from "../../datasets/ngrams.ts";
import { ALIASES } from "../../datasets/normalise.ts";
import { COLUMNS } from "../../datasets/row.ts";
import { FILE_FORMATS } from "../../datasets/upload.ts";
import { DEFAULT_LIST_LIMIT, listQuery, listSchema, MAX_LIST_LIMIT } from "../../http/list.ts";
import { boundedArray, metadataSchema, timestampSchema } from "../../http/schemas.ts";

/** A body of the default size holds fewer; what is longer is a file. */
const MAX_BODY_ROWS = 100_000;
const MAX_NAME = 200;

const nameSchema = z.string().trim().min(1).max(MAX_NAME).openapi({ example: "gsm8k-train" });

const compareSchema = z.enum(["question", "row"]);

export const dedupeSchema = z
  .strictObject({
    exact: z.boolean().default(true),
    near: z
      .number()
      .min(MIN_NEAR_THRESHOLD)
      .max(1)
      .optional()
      .openapi({
        description: `Likeness (share of five-word runs in common, estimated by MinHash) from which two texts are the same; ${DEFAULT_NEAR_THRESHOLD} is usual. Default: near-duplicates stay.`,
      }),
    compare: compareSchema.default("question").openapi({
      description:
        "`question`: rows with the same question are duplicates. `row`: only if reasoning and solution are the same too.",
    }),
  })
  .openapi("Dedupe", { description: "Of several rows that are the same the first stays." });

export const createDatasetSchema = z
  .strictObject({
    source: z.string().max(400).optional().openapi({
      description:
        "Instead of rows: `hf:org/name[@revision][:split]`, or `…:configuration/split` where there are several. Parquet, JSON lines or CSV.",
      example: "hf:openai/gsm8k:main/train",
    }),
    rows: boundedArray(z.unknown(), { min: 1, max: MAX_BODY_ROWS })
      .openapi({
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
      })
      .optional(),
    dedupe: dedupeSchema.optional(),
    name: nameSchema.optional(),
    metadata: metadataSchema.default({}),
  })
  .refine(({ rows, source }) => (rows === undefined) !== (source === undefined), {
    error: "send either rows or source, or a form with a file",
    path: ["rows"],
  })
  .openapi("CreateDataset", { example: { name: "sums", rows: [{ question: "What is 2+3?", solution: "5" }] } });

export type CreateDataset = z.output<typeof createDatasetSchema>;

/** JSON in a field of a form. */
const jsonField = z.string().transform((text, ctx): unknown => {
  try {
    return JSON.parse(text);
  } catch {
    ctx.issues.push({ code: "custom", message: "is not valid JSON", input: text });
    return z.NEVER;
  }
});

/** The fields beside the file of a form; `metadata` and `dedupe` are JSON there. */
export const datasetFormSchema = z.strictObject({
  name: nameSchema.optional(),
  format: z.enum(FILE_FORMATS).optional(),
  dedupe: jsonField.pipe(dedupeSchema).optional(),
  metadata: jsonField.pipe(metadataSchema).default({}),
});

/** Of the document alone: a form is read as it arrives (http/multipart.ts), not by a validator that holds it in memory. */
export const datasetFormDocument = {
  type: "object" as const,
  required: ["file"],
  properties: {
    file: {
      type: "string" as const,
      format: "binary",
      description: "Parquet, or JSON lines or CSV in UTF-8, plain or gzip.",
    },
    format: {
      type: "string" as const,
      enum: [...FILE_FORMATS],
      description: "Default: by the file's name, else by its type.",
    },
    name: { type: "string" as const, maxLength: MAX_NAME, description: "Default: the file's name." },
    metadata: { type: "string" as const, description: "A JSON object of texts." },
    dedupe: { type: "string" as const, description: 'As in JSON: {"exact": true, "near": 0.8}.' },
  },
};

const sourceSchema = z
  .object({
    type: z.enum(["file", "rows", "hub", "derived", "job"]),
    format: z.enum(FILE_FORMATS).optional(),
    compression: z.literal("gzip").optional(),
    filename: z.string().optional(),
    bytes: z.int().optional(),
    repo: z.string().optional(),
    revision: z.string().optional().openapi({ description: "The commit that was read." }),
    config: z.string().nullable().optional(),
    split: z.string().nullable().optional(),
    files: z.array(z.string()).optional(),
    parent: z.string().optional().openapi({ description: "The dataset that this one was derived from." }),
    settings: z.record(z.string(), z.unknown()).optional().openapi({ description: "How it was derived." }),
    part: z.string().optional().openapi({
      description:
        "What of a derivation it is (`kept`, `train`, `held_out`, `dropped`), or of a job (`output`, `errors`, …).",
    }),
    job: z.string().optional().openapi({ description: "Which job made it." }),
    dataset: z.string().optional().openapi({ description: "That the job made it from." }),
    teacher: z.string().nullable().optional(),
    student: z.string().nullable().optional(),
    dropped: z
      .object({ dataset: z.string(), rows: z.int(), reasons: z.record(z.string(), z.int()) })
      .optional()
      .openapi({ description: "What stayed out, and the dataset whose rows say why in `metadata.preceptor_dropped`." }),
  })
  .openapi("DatasetSource", { description: "Where the rows came from." });

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
    source: sourceSchema,
    metadata: metadataSchema,
  })
  .openapi("Dataset");

export type DatasetResource = z.infer<typeof datasetSchema>;

export const deriveDatasetSchema = z
  .strictObject({
    name: nameSchema.optional(),
    metadata: metadataSchema.default({}),
    filter: z
      .strictObject({
        metadata: z
          .record(z.string().max(200), z.union([z.string().max(2_000), z.number(), z.boolean()]))
          .optional()
          .openapi({ description: "Values that a row's metadata must have, as in `rows?metadata=`." }),
        reasoning_trace: z.boolean().optional().openapi({ description: "Whether a row must have reasoning." }),
        max_characters: z
          .int()
          .min(1)
          .optional()
          .openapi({ description: "Of question, reasoning and solution together." }),
      })
      .optional(),
    decontaminate: z
      .strictObject({
        against: boundedArray(z.string().max(80), { min: 1, max: 16 }).openapi({
          description: "Datasets whose questions must not be trained on.",
        }),
        ngram: z.int().min(5).max(50).nullable().default(DEFAULT_NGRAM).openapi({
          description:
            "A row that shares a run of so many words with one of their questions is dropped; null: none is.",
        }),
        near: z.number().min(MIN_NEAR_THRESHOLD).max(1).nullable().default(DEFAULT_NEAR_THRESHOLD).openapi({
          description: "A row whose question is so much alike one of theirs is dropped; null: none is.",
        }),
        compare: compareSchema.default("row").openapi({
          description: "Where shared runs are looked for: in the question alone, or in reasoning and solution too.",
        }),
      })
      .optional(),
    dedupe: dedupeSchema.optional(),
    split: z
      .strictObject({
        held_out: z.number().gt(0).lt(1).openapi({ description: "Share of the questions.", example: 0.1 }),
        seed: z.int().min(0).default(0),
      })
      .optional()
      .openapi({ description: "Into two datasets; all rows of a question lie on the same side, for ever the same." }),
  })
  .refine(({ filter, decontaminate, dedupe, split }) => filter ?? decontaminate ?? dedupe ?? split, {
    error: "say what to do: filter, decontaminate, dedupe or split",
  })
  .openapi("DeriveDataset", { example: { dedupe: { exact: true, near: 0.8 }, split: { held_out: 0.1, seed: 7 } } });

export type DeriveDataset = z.output<typeof deriveDatasetSchema>;

export const derivationSchema = z
  .object({
    object: z.literal("dataset.derivation"),
    parent: z.string(),
    dataset: datasetSchema.openapi({ description: "The rows that stayed or, with `split`, those to train on." }),
    held_out: datasetSchema.nullable(),
    dropped: z.object({
      rows: z.int(),
      reasons: z.record(z.string(), z.int()).openapi({ example: { near_duplicate: 12 } }),
      dataset: datasetSchema.nullable().openapi({
        description: "Each row with its reason in `metadata.preceptor_dropped`; null where none was dropped.",
      }),
    }),
  })
  .openapi("DatasetDerivation");

export type DerivationResource = z.infer<typeof derivationSchema>;

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
  metadata: z
    .string()
    .max(2_000)
    .optional()
    .openapi({
      description:
        "Only rows whose metadata has these values: `key:value`, several with commas between them. A key may be a path " +
        "(`preceptor.score`); a backslash goes before a comma or colon that belongs to a key or value.",
      example: "level:5,source:aops",
    }),
});

export const exportQuery = z.strictObject({
  format: z
    .enum(EXPORT_FORMATS)
    .default("jsonl")
    .openapi({
      description:
        "`jsonl`: the rows as they are stored. `prompt-completion`: TRL's conversational form. `chat-jsonl`: messages. " +
        "`sharegpt`: conversations. With reasoning, the last three write it and the solution in the tags of the format `stratos`. " +
        "`parquet`: the columns, metadata as JSON in a text. `hub`: a tar of a folder that a hub takes as it is (README.md, data/train.parquet).",
    }),
});
