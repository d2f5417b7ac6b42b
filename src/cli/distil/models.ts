/** Teacher and student of one command, opened as a server would open them, but without one. */
import path from "node:path";
import { weightsHashOf } from "../../api/evaluations/check.ts";
import { registerModelSchema } from "../../api/models/schemas.ts";
import { createModelService, type ModelService } from "../../api/models/service.ts";
import { patiently } from "../../api/patience.ts";
import { createModelUse } from "../../api/training/use.ts";
import { cacheOf, hubOf, preparationFor } from "../../compose-models.ts";
import type { Config } from "../../config.ts";
import type { GenerateDeps } from "../../distill/generate.ts";
import { createOnnxEngine } from "../../engine/onnx/engine.ts";
import { createOpenAiEngine } from "../../engine/openai/engine.ts";
import { createPlacement } from "../../engine/placement.ts";
import { PreceptorError } from "../../errors.ts";
import { hashAdapter } from "../../model/adapter.ts";
import { createTextService } from "../../text/client.ts";
import { CliError, usage } from "../errors.ts";
import { createModelList } from "./model-list.ts";

export type Role = "teacher" | "student";

/** As a registration has it, but for the id. */
export interface GivenModel {
  model: string;
  format?: unknown;
  precision?: string | undefined;
  adapter?: string | undefined;
  tokenizer?: string | undefined;
}

export interface LocalModels extends Pick<GenerateDeps, "teach" | "serve"> {
  service: ModelService;
  /** Names the model for good: what was given, and the hash of its weights where they lie here. */
  nameOf(role: Role): Promise<string>;
  close(): Promise<void>;
}

/** `given` are registered under their roles' names. */
export async function openLocalModels(
  settings: Config,
  given: Partial<Record<Role, GivenModel>>,
  note: (line: string) => void,
  signal: AbortSignal,
): Promise<LocalModels> {
  // The user's own paths: unlike a server, the command line may read whatever its user may.
  const modelsDirs = [process.cwd(), ...settings.modelsDirs, path.parse(process.cwd()).root];
  const config: Config = { ...settings, modelsDirs };
  const text = createTextService();
  const engine = createOnnxEngine({ cacheDir: cacheOf(config) });
  const remotes = createOpenAiEngine({
    allowedHosts: config.allowedHosts,
    observe(event) {
      if (event.type === "opened") note(`A server of ${event.model} is left alone for a while: ${event.message}\n`);
    },
    now: () => performance.now(),
    hashAdapter,
  });
  const placement = createPlacement({ engine, budgetBytes: config.modelMemoryBytes });
  const ending = new AbortController();
  const preparation = preparationFor({
    config,
    text,
    remotes,
    checkpointsDir: path.join(config.dataDir, "artifacts", "checkpoints"),
    log: { warn: (_: unknown, message?: string) => note(`warning: ${message}\n`) },
    hub: hubOf(config, ending.signal),
  });
  const service = createModelService({
    store: createModelList(() => new Date()),
    preparation,
    placement,
    engine,
    resources: { threads: config.threads, budgetBytes: config.modelMemoryBytes },
    findCheckpoint: async () => undefined,
    jobsOn: async () => [],
  });
  async function close(): Promise<void> {
    ending.abort();
    await preparation.close();
    await placement.close();
    await text.close();
  }
  try {
    for (const [role, body] of Object.entries(given) as [Role, GivenModel][]) await register(service, role, body);
  } catch (error) {
    await close();
    throw error;
  }
  const { teach, serve } = createModelUse(service);
  return {
    service,
    teach: (_, ended) => teach("teacher", ended),
    serve: (_, ended) => serve("student", ended),
    async nameOf(role) {
      const { prepared } = await patiently(() => service.prepare(role, { role, signal }), signal);
      const hash = weightsHashOf(prepared);
      const { model } = given[role]!;
      return hash === null ? model : `${model}@${hash}`;
    },
    close,
  };
}

async function register(service: ModelService, role: Role, body: GivenModel): Promise<void> {
  const defined = Object.fromEntries(Object.entries(body).filter(([, value]) => value !== undefined));
  const parsed = registerModelSchema.safeParse({ id: role, ...defined });
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw usage(`--${role}: ${[...(issue?.path ?? []), issue?.message].join(" ")}`);
  }
  try {
    await service.register(role, parsed.data);
  } catch (error) {
    if (!(error instanceof PreceptorError)) throw error;
    throw new CliError(`--${role} ${body.model}: ${error.message}`, undefined, error);
  }
}
