import { type Command, Option } from "commander";
import { FILE_FORMATS, type FileFormat } from "../../datasets/upload.ts";
import type { CliContext } from "../context.ts";
import { usage } from "../errors.ts";
import { integer, number } from "../options.ts";

export interface DistilOptions {
  teacher: string;
  student?: string;
  teacherAdapter?: string;
  studentAdapter?: string;
  teacherFormat?: string;
  studentFormat?: string;
  teacherTokenizer?: string;
  studentTokenizer?: string;
  precision?: string;
  out: string;
  errors?: string;
  format?: FileFormat;
  samples: number;
  select?: "raw" | "best" | "all";
  target?: number;
  preview?: number;
  maxTokens?: number;
  temperature?: number;
  topP?: number;
  topK?: number;
  seed: number;
  minReward?: number;
  minSolutionLogprob?: number;
  minUplift?: number;
  maxKlMean?: number;
  maxKlMax?: number;
  where?: string;
  wellFormed?: boolean;
  fitsContext?: boolean;
  dedupe?: boolean;
  notLeaked?: boolean;
}

const EXAMPLES = `
questions.jsonl has one object a line, with question and solution (docs/datasets.md lists other names); CSV, Parquet and gzip are read too.
Models: a directory, a .gguf file, hf:org/name, or openai+http://host:port/v1#served-name with --teacher-tokenizer and the
host in PRECEPTOR_ALLOWED_HOSTS.
Ended by Ctrl-C or killed, the same command goes on where it was; until it is done, what it has lies in OUT.partial.

Examples:
  $ preceptor distil questions.jsonl --teacher ./teacher --student ./student --samples 4 --out rows.jsonl --errors left-out.jsonl
  $ preceptor distil questions.csv --teacher t.gguf --student ./student --samples 8 --min-reward -1 --target 1000 --out rows.jsonl
`;

const REAL = 1e12;

export function addDistil(program: Command, context: () => CliContext): void {
  program
    .command("distil <questions>")
    .summary("make a dataset of a teacher's explanations, without a server")
    .description("Have a teacher explain every question of a file, a student score them, and write the selected rows.")
    .requiredOption("-t, --teacher <model>", "who writes the explanations")
    .option("--student <model>", "who reads and thereby scores them")
    .requiredOption("-o, --out <file>", "the rows, as JSON lines")
    .option("--errors <file>", "what was left out, each with its reason")
    .addOption(new Option("--format <format>", "of the questions (default: by the name)").choices(FILE_FORMATS))
    .option("--samples <count>", "explanations of each question", integer(1, 256), 1)
    .addOption(
      new Option("--select <rule>", "of each question (default: best of several, else raw)").choices([
        "raw",
        "best",
        "all",
      ]),
    )
    .option("--target <rows>", "end with exactly so many rows", integer(1, 1e9))
    .option("--preview <questions>", "only the first so many questions", integer(1, 10_000))
    .option("--max-tokens <count>", "longest explanation in tokens", integer(1, 1_000_000))
    .option("--temperature <t>", "sampling temperature (default 0.7)", number(0, 100))
    .option("--top-p <p>", "nucleus sampling", number(0, 1))
    .option("--top-k <k>", "sample among the k likeliest tokens only", integer(0, 1_000_000))
    .option("--seed <seed>", "same seed, same rows", integer(0, Number.MAX_SAFE_INTEGER), 0)
    .option("--min-reward <r>", "least reward of a row", number(-REAL, REAL))
    .option("--min-solution-logprob <l>", "least mean log-prob of its solution", number(-REAL, REAL))
    .option("--min-uplift <u>", "least gain in that over no explanation", number(-REAL, REAL))
    .option("--max-kl-mean <k>", "greatest mean KL", number(-REAL, REAL))
    .option("--max-kl-max <k>", "greatest KL of a token", number(-REAL, REAL))
    .option("--where <json>", "thresholds on parts of the score (docs/distillation.md)")
    .option("--well-formed", "leave out what is not closed properly")
    .option("--no-well-formed", "keep it")
    .option("--fits-context", "leave out what is longer than the student's context")
    .option("--dedupe", "leave out near-copies of accepted explanations")
    .option("--not-leaked", "leave out what gives the solution away at its beginning")
    .option("--teacher-format <format>", "stratos, r1 or a JSON object (default stratos)")
    .option("--student-format <format>", "the same of the student")
    .option("--teacher-adapter <directory>", "a LoRA adapter of the teacher")
    .option("--student-adapter <directory>", "a LoRA adapter of the student")
    .option("--teacher-tokenizer <directory>", "where the teacher is a server: its tokenizer")
    .option("--student-tokenizer <directory>", "where the student is a server: its tokenizer")
    .option("--precision <precision>", "of the weights: auto, fp32, q8, q4, q8_0, q4_0 (default auto)")
    .addHelpText("after", EXAMPLES)
    .action(async (questions: string, options: DistilOptions) => {
      const { distil } = await import("../distil/run.ts");
      await distil(commandOf(questions, options), context());
    });
}

function commandOf(input: string, options: DistilOptions) {
  const { out, errors, format, precision } = options;
  const model = (role: "teacher" | "student", name: string) => ({
    model: name,
    format: formatOf(options[`${role}Format`], `--${role}-format`),
    adapter: options[`${role}Adapter`],
    tokenizer: options[`${role}Tokenizer`],
    precision,
  });
  return {
    input,
    out,
    errors,
    format,
    teacher: model("teacher", options.teacher),
    student: options.student === undefined ? undefined : model("student", options.student),
    job: jobOf(options),
  };
}

/** The body of the route, from options of other names. */
function jobOf(options: DistilOptions): object {
  const given = {
    min_reward: options.minReward,
    min_solution_logprob: options.minSolutionLogprob,
    min_uplift: options.minUplift,
    max_kl_mean: options.maxKlMean,
    max_kl_max: options.maxKlMax,
    where: options.where === undefined ? undefined : jsonOf(options.where, "--where"),
  };
  const thresholds = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  const rule = options.select;
  const per = rule === "raw" ? "first" : (rule ?? (options.samples > 1 ? "best" : "first"));
  const select = Object.keys(thresholds).length > 0 ? { ...thresholds, per_question: per } : rule;
  return {
    samples_per_question: options.samples,
    select,
    target_rows: options.target,
    preview: options.preview,
    max_tokens: options.maxTokens,
    temperature: options.temperature,
    top_p: options.topP,
    top_k: options.topK,
    seed: options.seed,
    well_formed: options.wellFormed,
    fits_context: options.fitsContext,
    dedupe: options.dedupe,
    not_leaked: options.notLeaked,
  };
}

function formatOf(text: string | undefined, option: string): unknown {
  return text?.startsWith("{") ? jsonOf(text, option) : text;
}

function jsonOf(text: string, option: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    throw usage(`${option} is not JSON.`);
  }
}
