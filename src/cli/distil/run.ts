/** A distillation job without a server: the same pipeline, with a folder beside the output in place of the database. */
import path from "node:path";
import { checkDistillation } from "../../api/distillation/check.ts";
import { type CreateDistillation, createDistillationSchema } from "../../api/distillation/request-schemas.ts";
import { patiently } from "../../api/patience.ts";
import { loadConfig } from "../../config.ts";
import type { Dataset } from "../../datasets/dataset.ts";
import type { FileFormat } from "../../datasets/upload.ts";
import type { DistillConfig } from "../../distill/config.ts";
import { type GenerateDeps, generate, journalFolder, outcomes, questionsOf } from "../../distill/generate.ts";
import { type OutcomeRows, rowsOf } from "../../distill/output.ts";
import { createProgress, type DistillProgress } from "../../distill/progress.ts";
import { PreceptorError } from "../../errors.ts";
import type { JobContext } from "../../jobs/context.ts";
import type { JobRecord } from "../../jobs/records.ts";
import { configHash } from "../../train/resolve-config.ts";
import type { CliContext } from "../context.ts";
import { CliError, usage } from "../errors.ts";
import { statusLine } from "../terminal/status-line.ts";
import { readQuestions } from "./input.ts";
import { type GivenModel, type LocalModels, openLocalModels } from "./models.ts";
import { nextToken, openPartial, type PartialWork, requireSameArguments } from "./partial.ts";
import { progressLine, summary } from "./tell.ts";

export interface DistilCommand {
  input: string;
  format?: FileFormat | undefined;
  out: string;
  errors?: string | undefined;
  teacher: GivenModel;
  student?: GivenModel | undefined;
  /** As the body of POST /v1/distillation/jobs, without models and dataset. */
  job: object;
}

export async function distil(command: DistilCommand, context: CliContext): Promise<void> {
  const request = requestOf(command);
  const { signal } = context;
  const partial = await openPartial(path.resolve(command.out));
  let models: LocalModels | null = null;
  try {
    const dataset = await readQuestions(path.resolve(command.input), command.format, partial.folder, signal);
    const { teacher, student } = command;
    models = await openLocalModels(
      loadConfig(undefined, { serving: false }),
      { teacher, ...(student ? { student } : {}) },
      context.note,
      signal,
    );
    const config = await configOf(request, models, dataset, signal);
    await requireSameArguments(partial, { teacher_as: teacher, student_as: student ?? null, ...config });
    await work(command, { models, partial, dataset, config }, context);
  } catch (error) {
    if (signal.aborted) context.note(`What is done is in ${partial.folder}; the same command goes on with it.\n`);
    throw error;
  } finally {
    await models?.close();
    await partial.release();
  }
}

function requestOf({ job, student }: DistilCommand): CreateDistillation {
  const models = { teacher: "teacher", ...(student ? { student: "student" } : {}) };
  const parsed = createDistillationSchema.safeParse({ ...job, ...models, dataset: "input" });
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw usage(`${issue?.path.join(".")}: ${issue?.message}`);
}

async function configOf(
  request: CreateDistillation,
  models: LocalModels,
  dataset: Dataset,
  signal: AbortSignal,
): Promise<DistillConfig> {
  const deps = {
    models: models.service,
    datasets: { open: async () => dataset },
    allowedHosts: [],
    random: () => 0,
  };
  try {
    const config = await patiently(() => checkDistillation(deps, request), signal);
    const { contentHash } = dataset;
    const student = config.student === null ? null : await models.nameOf("student");
    return { ...config, dataset: contentHash, teacher: await models.nameOf("teacher"), student };
  } catch (error) {
    if (!(error instanceof PreceptorError)) throw error;
    throw new CliError(error.message, undefined, error);
  }
}

interface Parts {
  models: LocalModels;
  partial: PartialWork;
  dataset: Dataset;
  config: DistillConfig;
}

async function work(command: DistilCommand, parts: Parts, context: CliContext): Promise<void> {
  const { models, partial, dataset, config } = parts;
  const { folder } = partial;
  // Of what was asked, so that the same rows come of the same command.
  const id = `distil_${configHash(config).slice("sha256:".length, "sha256:".length + ID_DIGITS)}`;
  const deps: GenerateDeps = { ...models, patiently, artifacts: folder };
  const line = statusLine(process.stderr);
  const begun = performance.now();
  const job: JobContext = {
    job: { id, config, leaseToken: await nextToken(journalFolder(folder, id)), progress: null } as unknown as JobRecord,
    signal: context.signal,
    wanted: () => null,
    event: async () => undefined,
    metrics: async () => undefined,
    checkpoint: async () => undefined,
    progress: async (progress) => line.show(progressLine(progress as unknown as DistillProgress)),
  };
  const progress = createProgress(job, config, questionsOf(config, dataset), () => performance.now());
  try {
    line.show("loading the models …");
    const { questions } = await generate(deps, job, config, dataset, progress);
    const all = () => outcomes({ artifacts: folder }, id, config, dataset, questions);
    async function* lines(part: keyof OutcomeRows): AsyncGenerator<string> {
      for await (const outcome of all()) {
        context.signal.throwIfAborted();
        for (const row of rowsOf(outcome, id, config)[part]) yield JSON.stringify(row);
      }
    }
    if (command.errors !== undefined) await partial.write(path.resolve(command.errors), lines("rejected"));
    await partial.write(path.resolve(command.out), lines("accepted"));
    await partial.remove();
    line.clear();
    context.note(summary(command.out, progress.now, config, performance.now() - begun));
  } finally {
    line.clear();
  }
}

/** Of a hash: enough that no two commands of one person share it. */
const ID_DIGITS = 12;
