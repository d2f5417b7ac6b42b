/** Registered models behind the real app: tiny real checkpoints, a real database, an engine and a tokenizer that pretend. */
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { createPreparation, type Preparation } from "../../src/api/models/preparation.ts";
import type { ModelRegistry } from "../../src/api/models/registry.ts";
import { modelRoutes } from "../../src/api/models/routes.ts";
import { createModelService, type ModelService, type ModelServiceDeps } from "../../src/api/models/service.ts";
import type { Database } from "../../src/db/database.ts";
import { createModelStore } from "../../src/db/model-store.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { createOpenAiEngine } from "../../src/engine/openai/engine.ts";
import { createPlacement, type Placement } from "../../src/engine/placement.ts";
import { fail } from "../../src/errors.ts";
import { createApp } from "../../src/http/app.ts";
import { hashAdapter } from "../../src/model/adapter.ts";
import type { TextService } from "../../src/text/text.ts";
import { createFakeEngine, createFakeText } from "./fakes.ts";

const GOLDEN = fileURLToPath(new URL("../golden/models", import.meta.url));

/** A models directory with copies of golden checkpoints under names of their own: `{ base: "llama" }`. */
export async function modelsDirectory(copies: Readonly<Record<string, string>>): Promise<string> {
  const directory = await mkdtemp(path.join(tmpdir(), "preceptor-models-"));
  for (const [name, golden] of Object.entries(copies)) {
    await cp(path.join(GOLDEN, golden), path.join(directory, name), { recursive: true });
  }
  return directory;
}

/** What every pretended model takes. */
const MODEL_BYTES = 64 * 2 ** 20;

export interface ModelsFixture {
  service: ModelService;
  registry: ModelRegistry;
  placement: Placement;
  preparation: Preparation;
  engine: Engine;
  call(method: string, path: string, body?: object): Promise<{ status: number; body: Answer; headers: Headers }>;
  /** What the pretended parts were asked for. */
  opened: string[];
  tokenizers: string[];
  converted: string[];
  close(): Promise<void>;
}

// biome-ignore lint/suspicious/noExplicitAny: tests look into whatever came back
export type Answer = any;

export interface ModelsOptions {
  database: Database;
  directory: string;
  /** Called when weights load; throws what the engine would. */
  onOpen?: () => Promise<void> | void;
  materialiseGguf?: (file: string) => Promise<string>;
  resolveHub?: () => Promise<string>;
  budgetBytes?: number;
  allowedHosts?: readonly string[];
  credentials?: Readonly<Record<string, string>>;
  train?: Engine["train"];
  findCheckpoint?: ModelServiceDeps["findCheckpoint"];
  jobsOn?: ModelServiceDeps["jobsOn"];
}

export function createModelsFixture(options: ModelsOptions): ModelsFixture {
  const { database, directory } = options;
  const opened: string[] = [];
  const tokenizers: string[] = [];
  const converted: string[] = [];
  const engine: Engine = {
    name: "fake",
    capabilities: { ...createFakeEngine().capabilities, batch_invariant: false },
    async check({ device }) {
      if (device !== "cpu") throw fail("unsupported_by_backend", `no ${device} here; use cpu`, { param: "device" });
    },
    async open(checkpoint, { contextLength }) {
      opened.push(path.basename(checkpoint.directory));
      await options.onOpen?.();
      const model = createFakeEngine({ contextLength, vocabSize: checkpoint.config.vocabSize });
      return { ...model, memoryBytes: () => MODEL_BYTES };
    },
    train: options.train ?? (() => Promise.reject(new Error("nothing is trained here"))),
  };
  const text: TextService = {
    async open(folder) {
      tokenizers.push(path.basename(folder));
      return createFakeText();
    },
    close: async () => undefined,
  };
  const budgetBytes = options.budgetBytes ?? 2 ** 40;
  const placement = createPlacement({ engine, budgetBytes, waitMs: 2_000 });
  const preparation = createPreparation({
    text,
    modelsDirs: [directory],
    cacheRoots: [],
    checkpointsDir: path.join(directory, "checkpoints"),
    async materialiseGguf(file) {
      converted.push(path.basename(file));
      if (!options.materialiseGguf) throw fail("invalid_checkpoint", "not a GGUF file");
      return options.materialiseGguf(file);
    },
    resolveHub: options.resolveHub ?? (() => Promise.reject(fail("hub_error", "no network in this test"))),
    remotes: {
      engine: createOpenAiEngine({
        allowedHosts: options.allowedHosts ?? [],
        observe: () => undefined,
        now: () => performance.now(),
        hashAdapter,
      }),
      credential: (name) => options.credentials?.[name],
    },
  });
  const service = createModelService({
    store: createModelStore(database.db),
    preparation,
    placement,
    engine,
    resources: { threads: 1, budgetBytes },
    findCheckpoint: options.findCheckpoint ?? (async () => undefined),
    jobsOn: options.jobsOn ?? (async () => []),
  });
  const app = createApp({ routes: [modelRoutes({ models: service })], authenticate: null, strictJson: true });
  return {
    service,
    registry: service,
    placement,
    preparation,
    engine,
    opened,
    tokenizers,
    converted,
    async call(method, route, body) {
      const response = await app.request(`http://127.0.0.1${route}`, {
        method,
        headers: { "content-type": "application/json", host: "127.0.0.1" },
        ...(body ? { body: JSON.stringify(body) } : {}),
      });
      return { status: response.status, body: await response.json(), headers: response.headers };
    },
    async close() {
      await preparation.close();
      await placement.close();
    },
  };
}

export const removeDirectory = (directory: string): Promise<void> => rm(directory, { recursive: true, force: true });
