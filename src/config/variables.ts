/** Every variable of the environment by its name, with its form and its default where that is a constant. */
import { z } from "zod";
import { suggest } from "../suggest.ts";
import { CREDENTIAL } from "./secrets.ts";

export type Env = Readonly<Record<string, string | undefined>>;

/** Bodies: two million tokens of text. More is a data set, not a request. */
export const DEFAULT_MAX_BODY_MB = 8;
/** Files of datasets: a hundred thousand questions with long chains of thought. They go to disk, not into memory. */
export const DEFAULT_MAX_DATASET_MB = 1024;
/** Orchestrators kill 30 s after asking (Kubernetes) or 10 s (Docker's default; compose.yaml raises it). */
const SHUTDOWN_GRACE_S = 25;

const list = (separator: RegExp) =>
  z.string().transform((text) =>
    text
      .split(separator)
      .map((item) => item.trim())
      .filter((item) => item !== ""),
  );
const flag = z.stringbool({ error: "must be 1 or 0 (true/false, yes/no)" }).default(false);
const wholeNumber = (min: number, max: number) =>
  z
    .string()
    .regex(/^\d+$/, `must be a whole number from ${min} to ${max}`)
    .transform(Number)
    .refine((value) => value >= min && value <= max, `must be a whole number from ${min} to ${max}`);
const httpUrl = z
  .string()
  .refine((text) => /^https?:\/\//.test(text) && URL.canParse(text), "must be an http:// or https:// URL")
  .transform((text) => text.replace(/\/+$/, ""));
const origin = z
  .string()
  .refine(
    (text) => URL.canParse(text) && new URL(text).origin === text,
    "must list web origins such as https://app.example.org, separated by commas",
  );

const LEVELS = ["fatal", "error", "warn", "info", "debug", "trace", "silent"] as const;

export const variables = z.object({
  PRECEPTOR_HOST: z.string().default("127.0.0.1"),
  PRECEPTOR_PORT: wholeNumber(0, 65_535).default(8080),
  PRECEPTOR_DATA_DIR: z.string().default("./data"),
  PRECEPTOR_ARTIFACTS: z
    .string()
    .regex(/^(file|s3):/, "must begin with file: or s3:")
    .optional(),
  PRECEPTOR_MODELS_DIRS: list(/:/).optional(),
  DATABASE_URL: z
    .string()
    .regex(/^postgres(ql)?:\/\//, "must be a postgres:// URL; leave it unset for the embedded database")
    .optional(),
  HF_ENDPOINT: httpUrl.default("https://huggingface.co"),
  HF_HUB_OFFLINE: flag,
  HF_HUB_CACHE: z.string().optional(),
  PRECEPTOR_ALLOWED_HOSTS: list(/[,\s]+/).default([]),
  PRECEPTOR_THREADS: wholeNumber(1, 1024).optional(),
  PRECEPTOR_MODEL_MEMORY: z
    .string()
    .regex(/^\d+(\.\d+)?\s*(%|[KMGT]?i?B?)$/i, "must be a size such as 8GB, 512MiB or 70%")
    .optional(),
  PRECEPTOR_LOG_LEVEL: z.enum(LEVELS, { error: `must be one of ${LEVELS.join(", ")}` }).default("info"),
  PRECEPTOR_LOG_FORMAT: z.enum(["pretty", "json"], { error: "must be pretty or json" }).optional(),
  PRECEPTOR_CORS_ORIGINS: list(/[,\s]+/)
    .pipe(z.array(origin))
    .default([]),
  PRECEPTOR_METRICS_OPEN: flag,
  PRECEPTOR_MAX_BODY_MB: wholeNumber(1, 1024).default(DEFAULT_MAX_BODY_MB),
  PRECEPTOR_MAX_DATASET_MB: wholeNumber(1, 1024 * 1024).default(DEFAULT_MAX_DATASET_MB),
  PRECEPTOR_SHUTDOWN_GRACE_S: wholeNumber(0, 3600).default(SHUTDOWN_GRACE_S),
  PRECEPTOR_URL: httpUrl.optional(),
});

const KNOWN = [...Object.keys(variables.shape), "PRECEPTOR_API_KEY", "PRECEPTOR_API_KEY_FILE"];

/** Sentences about PRECEPTOR_ variables that are no settings. */
export function misspelt(names: readonly string[]): string[] {
  return names
    .filter((name) => name.startsWith("PRECEPTOR_") && !name.startsWith(CREDENTIAL) && !KNOWN.includes(name))
    .map((name) => {
      const guess = suggest(name, KNOWN);
      return `${name} is not a setting and has no effect.${guess ? ` Did you mean ${guess}?` : ""}`;
    });
}
