import { z } from "@hono/zod-openapi";
import type { Precision } from "../../engine/engine.ts";
import { listQuery, listSchema } from "../../http/list.ts";
import { errorSchema, metadataSchema, slugSchema, timestampSchema } from "../../http/schemas.ts";
import { DEFAULT_FORMAT } from "../../rlt/formats.ts";

/** A prompt text is a page, not a book. */
const MAX_FORMAT_TEXT = 20_000;
const formatText = z.string().max(MAX_FORMAT_TEXT);

export const customFormatSchema = z
  .strictObject({
    system: formatText.nullable().default(null).openapi({ description: "null: no system turn." }),
    user: formatText.optional().openapi({ description: "Default: {question}." }),
    prefix: formatText.openapi({
      description: "Beginning of the assistant's turn: before the solution (teacher) or the explanation (student).",
    }),
    close: formatText.min(1).openapi({ description: "The tag that ends the explanation." }),
    between: formatText.optional().openapi({
      description: "Teacher: between solution and explanation. Student: between the closing tag and the solution.",
    }),
    suffix: formatText.optional().openapi({ description: "After all of it." }),
    solution_padding: z.string().max(16).optional().openapi({
      description: "Put before and after the solution where it does not already begin or end with it.",
    }),
    chat_template: formatText.optional().openapi({ description: "Jinja, for checkpoints that bring none." }),
  })
  .openapi("CustomFormat", {
    description: "Texts of one role; {question}, {solution} and {explanation} are the only placeholders.",
  });

export const formatSchema = z.union([z.enum(["stratos", "r1"]), customFormatSchema]);

const precisions = ["fp32", "q8", "q4", "q8_0", "q4_0"] as const satisfies Precision[];

const precisionSchema = z.enum(["auto", ...precisions]).openapi({
  description:
    "Of the weights. q8, q4: 8 and 4 bits in blocks of 128, the fastest. q8_0, q4_0: in GGUF's own blocks of 32, so that a " +
    "GGUF file of that type keeps its numbers. auto: fp32 for models of up to 600 million parameters that take a third of " +
    "the memory for models at most; else what a GGUF file has, or q8, if that takes half of it at most; else q4 (gemma3: " +
    "never below 8 bits). On devices other than the CPU fp32.",
});
const deviceSchema = z
  .string()
  .regex(/^(auto|cpu|cuda:\d{1,2}|webgpu)$/, 'must be "auto", "cpu", "cuda:N" or "webgpu"')
  .openapi({ example: "auto" });

export const registerModelSchema = z
  .strictObject({
    id: slugSchema,
    model: z
      .string()
      .min(1)
      .max(4096)
      .openapi({
        description:
          "A directory or GGUF file under a models directory; hf:org/name[@revision]; or a server that speaks OpenAI's " +
          "completions (vLLM, another Preceptor, llama.cpp): openai+http(s)://host:port/v1#served-name, several base URLs of one " +
          "model separated by commas. Hosts must be among PRECEPTOR_ALLOWED_HOSTS.",
        example: "SmolLM2-135M-Instruct",
      }),
    adapter: z
      .string()
      .min(1)
      .max(4096)
      .optional()
      .openapi({
        description:
          "A PEFT LoRA directory under a models directory. Of a remote model: loaded into the server (/v1/load_lora_adapter), which " +
          "must see the same path.",
      }),
    format: formatSchema.default(DEFAULT_FORMAT),
    precision: precisionSchema.default("auto"),
    device: deviceSchema.default("auto"),
    context_length: z
      .int()
      .min(16)
      .max(10_000_000)
      .optional()
      .openapi({
        description:
          "Default: the checkpoint's own (4096 for toys made for fewer than 2048). Larger values are taken at their word: " +
          "positions go on, what the model makes of them is its own affair.",
      }),
    credential: z
      .string()
      .regex(/^[A-Za-z0-9_]{1,64}$/, "must be the name of a secret: letters, digits, underscores")
      .optional()
      .openapi({ description: "Name of a secret (PRECEPTOR_CREDENTIAL_<NAME>), for remote models only." }),
    tokenizer: z
      .string()
      .min(1)
      .max(4096)
      .optional()
      .openapi({
        description:
          "Remote models only, and needed there: the tokenizer of the served model, a directory (or GGUF file) under a models " +
          "directory or hf:org/name (no weights are downloaded). It is compared with the server's.",
      }),
    tempered: z
      .number()
      .min(0.01)
      .max(100)
      .optional()
      .openapi({
        description:
          "Remote models only: the server serves a copy whose logits are divided by this (preceptor models temper), so its " +
          "log-probs are exact at this temperature.",
        example: 0.7,
      }),
    pinned: z.boolean().default(false).openapi({ description: "Once loaded it never leaves memory by itself." }),
    metadata: metadataSchema.default({}),
  })
  .openapi("RegisterModel");

export type RegisterModel = z.output<typeof registerModelSchema>;

export const updateModelSchema = z
  .strictObject({
    metadata: metadataSchema.optional(),
    adapter: z.string().min(1).max(4096).nullable().optional().openapi({
      description: "Another adapter, or null for the bare base: a new version.",
    }),
    pinned: z.boolean().optional(),
  })
  .openapi("UpdateModel");

export type UpdateModel = z.output<typeof updateModelSchema>;

export const modelSchema = z
  .object({
    id: z.string(),
    object: z.enum(["teacher", "student"]),
    created_at: timestampSchema,
    version: z.int(),
    status: z.enum(["loading", "ready", "unloaded", "failed"]).openapi({
      description:
        "unloaded: checked, loads on first use. loading: being downloaded, converted or loaded. failed: the last attempt to " +
        "read or load it failed, `error` says why; the next use tries again. A remote model is loading while its servers are " +
        "reached and probed, then ready.",
    }),
    model: z.string(),
    adapter: z.string().nullable(),
    format: formatSchema,
    precision: z.enum(["auto", ...precisions]).openapi({
      description:
        "The one it is loaded with; auto only while its files have not been read (a download or conversion).",
    }),
    device: z.string(),
    context_length: z.int().nullable(),
    parameters: z.int().nullable(),
    tokenizer: z.string().nullable().openapi({ description: "Where a remote model's tokenizer comes from." }),
    tempered: z.number().nullable().openapi({ description: "The temperature a remote model's logits are divided by." }),
    weights_hash: z.string().nullable(),
    adapter_hash: z.string().nullable(),
    tokenizer_hash: z.string().nullable(),
    capabilities: z
      .object({
        sample: z.boolean(),
        logprobs: z.boolean(),
        temperature_scoring: z.boolean().openapi({ description: "Log-probs at any temperature, exactly." }),
        exact_temperatures: z
          .array(z.number())
          .nullable()
          .openapi({
            description:
              "Temperatures at which log-probs are exact; null: all. At others they are estimated from the most likely tokens, " +
              "with an error_bound.",
          }),
        topk: z.boolean(),
        at_ids: z.boolean().openapi({ description: "Log-probs at chosen ids: a student's part in topk_tail." }),
        distributions: z.boolean(),
        adapters: z.boolean(),
        train: z.boolean(),
        batch_invariant: z.boolean().openapi({ description: "Set by a self-test when the model loads." }),
      })
      .openapi({ description: "Of a remote model: what probing it has shown; all false until it has been reached." }),
    pinned: z.boolean(),
    error: errorSchema.shape.error.optional(),
    metadata: metadataSchema,
  })
  .openapi("Model");

export type ModelResource = z.infer<typeof modelSchema>;

export const modelListSchema = listSchema("RegisteredModelList", modelSchema);
export const listModelsQuery = listQuery;
