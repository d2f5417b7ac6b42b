/** Builds the program once, from its settings: database, engine, services, server. `close()` stops them in reverse. */
import { mkdir } from "node:fs/promises";
import { hostname } from "node:os";
import path from "node:path";
import type { Logger } from "pino";
import { linked } from "./abort.ts";
import { createCheckpointService } from "./api/checkpoints/service.ts";
import { createDatasetService } from "./api/datasets/service.ts";
import { createDistillationService } from "./api/distillation/service.ts";
import { createEvaluationService } from "./api/evaluations/service.ts";
import { createExplanationService, type ExplanationService } from "./api/explanations/service.ts";
import { registerFound } from "./api/models/found.ts";
import { createModelService } from "./api/models/service.ts";
import { withTextsOfRemotes } from "./api/models/texts.ts";
import { createReportService } from "./api/reports/service.ts";
import { apiRoutes } from "./api/routes.ts";
import { createScoreService } from "./api/scores/service.ts";
import { createEstimateService } from "./api/training/estimates/service.ts";
import { createTrainingJobService } from "./api/training/jobs/service.ts";
import { createPreviewService } from "./api/training/preview/service.ts";
import { createTrainingSessionService, type TrainingSessionService } from "./api/training/sessions/service.ts";
import { artifactsDirectory, createFileArtifacts, sweepStaging } from "./artifacts/files.ts";
import { distillationHandlers } from "./compose-distillation.ts";
import { evaluationHandlers } from "./compose-evaluation.ts";
import { cacheOf, hubOf, preparationFor } from "./compose-models.ts";
import { gaugeJobs, trainingDeps, trainingHandlers } from "./compose-training.ts";
import type { Config } from "./config.ts";
import { openDatabase } from "./db/database.ts";
import { createDatasetStore } from "./db/dataset-store.ts";
import { createExplanationStore } from "./db/explanation-store.ts";
import { createIdempotencyStore, type IdempotencyStore } from "./db/idempotency-store.ts";
import { withModelCache } from "./db/model-cache.ts";
import { createModelStore } from "./db/model-store.ts";
import { createOnnxEngine } from "./engine/onnx/engine.ts";
import { createOpenAiEngine } from "./engine/openai/engine.ts";
import { createPlacement } from "./engine/placement.ts";
import { createApp } from "./http/app.ts";
import { createKeyAuthenticator } from "./http/auth.ts";
import { createLifecycle } from "./http/lifecycle.ts";
import { createMetrics } from "./http/metrics.ts";
import { startServer } from "./http/server.ts";
import { createJobQueue } from "./jobs/queue.ts";
import { createJobRunner } from "./jobs/runner.ts";
import { createLoadMetrics } from "./load-metrics.ts";
import { hashAdapter } from "./model/adapter.ts";
import { resolveHubData } from "./model/hub/resolve-data.ts";
import { gaugeRemotes, observeRemotes } from "./remote-metrics.ts";
import { createTextService } from "./text/client.ts";
import { sweepFolders } from "./train/checkpoint-folders.ts";
import { createCheckpointStore } from "./train/checkpoint-store.ts";
import type { DatasetSource } from "./train/datasets.ts";
import { openScratch } from "./train/scratch.ts";
import { VERSION } from "./version.ts";
import { webRoutes } from "./web/routes.ts";

export interface App {
  url: string;
  close(): Promise<void>;
}

/** What a process does of it: `api` leaves jobs to others, `worker` does nothing else. */
export type ProcessRole = "all" | "api" | "worker";

export interface ComposeOptions {
  role?: ProcessRole;
  datasets?: DatasetSource;
  /** How long jobs are held by one who does not say that he lives; for tests, which do not wait half a minute. */
  lease?: { leaseMs: number; heartbeatMs: number };
}

/** `url` is empty for a worker, which listens nowhere. */
export async function compose(config: Config, log: Logger, options: ComposeOptions = {}): Promise<App> {
  const early = holdBack(log);
  const stack: (() => Promise<void>)[] = [];
  const closeAll = async (): Promise<void> => {
    for (const close of stack.splice(0).reverse()) {
      await close().catch((error: unknown) => log.error({ err: error }, "closing failed"));
    }
  };
  try {
    return await build(options, config, log, early.log, {
      onClose: (close) => stack.push(close),
      closeAll,
    });
  } catch (error) {
    await closeAll();
    throw error;
  } finally {
    early.release();
  }
}

/** A change of a model reaches the other servers of a database before a person has turned to them. */
const SHARED_MODELS_MAX_AGE_MS = 1_000;

type Notices = Pick<Logger, "info" | "warn" | "error">;

/** Programs that start this one read the first line of its log for the address: what is to be said before waits for it. */
function holdBack(log: Logger): { log: Notices; release(): void } {
  const lines: (() => void)[] = [];
  const later =
    (level: keyof Notices) =>
    (...line: unknown[]): void =>
      void lines.push(() => (log[level] as (...line: unknown[]) => void)(...line));
  return {
    log: { info: later("info"), warn: later("warn"), error: later("error") } as Notices,
    release() {
      for (const line of lines.splice(0)) line();
    },
  };
}

async function build(
  { role = "all", datasets: given, lease }: ComposeOptions,
  config: Config,
  log: Logger,
  early: Notices,
  { onClose, closeAll }: { onClose(close: () => Promise<void>): void; closeAll(): Promise<void> },
): Promise<App> {
  for (const warning of config.warnings) early.warn(warning);
  const cacheDir = cacheOf(config);
  await mkdir(cacheDir, { recursive: true });
  const artifactsDir = artifactsDirectory(config.artifacts);
  await sweepStaging(artifactsDir, Date.now());

  const database = await openDatabase({ dataDir: config.dataDir, databaseUrl: config.databaseUrl, log });
  onClose(() => database.close());
  const queue = createJobQueue(database.db);
  const checkpointsDir = path.join(artifactsDir, "checkpoints");
  const exclusive = database.kind === "pglite";
  const left = await sweepFolders(checkpointsDir, { findCheckpoint: queue.findCheckpoint, exclusive, now: Date.now() });
  if (left.length > 0) early.info({ folders: left }, "checkpoints that a killed process left unfinished were removed");
  const text = createTextService();
  onClose(() => text.close());
  const engine = createOnnxEngine({ cacheDir });
  const metrics = createMetrics({ process: true });
  const remotes = createOpenAiEngine({
    allowedHosts: config.allowedHosts,
    observe: observeRemotes(metrics, log),
    now: () => performance.now(),
    hashAdapter,
  });
  const loads = createLoadMetrics(metrics, () => placement.loaded());
  const placement = createPlacement({
    engine,
    budgetBytes: config.modelMemoryBytes,
    onLoad: (event) => log.info(event, "model loaded"),
    onUnload({ load, ...event }) {
      loads.unloaded(load);
      log.info(event, "model unloaded");
    },
  });
  onClose(() => placement.close());

  // A download would keep the process alive until its end; it is resumed next time.
  const ending = new AbortController();
  const hub = hubOf(config, ending.signal);

  const now = (): Date => new Date();
  const preparation = preparationFor({ config, text, remotes, checkpointsDir, log, hub });
  gaugeRemotes(metrics, () => preparation.remotes());
  onClose(() => preparation.close());
  // First: a server that is being connected may be waiting for the download of its tokenizer.
  onClose(async () => ending.abort());
  const models = createModelService({
    store: withModelCache(createModelStore(database.db, now), {
      // Nobody else opens an embedded database; of a shared one other servers' changes are seen after a moment.
      maxAgeMs: database.kind === "pglite" ? Number.POSITIVE_INFINITY : SHARED_MODELS_MAX_AGE_MS,
      now: () => performance.now(),
    }),
    preparation,
    placement,
    engine,
    resources: { threads: config.threads, budgetBytes: config.modelMemoryBytes },
    findCheckpoint: queue.findCheckpoint,
    // As a configuration names it: "model":"id@3".
    jobsOn: (id) => queue.needing(`"${id}@`),
  });
  const store = createDatasetStore(database.db, now);
  const artifacts = createFileArtifacts({ directory: artifactsDir });
  const datasets = createDatasetService({
    store,
    artifacts,
    maxFileBytes: config.http.maxDatasetBytes,
    async resolveHub(reference, signal) {
      const either = linked(signal, ending.signal);
      try {
        return await resolveHubData(reference, { ...hub, signal: either.signal });
      } finally {
        either.unlink();
      }
    },
    usedBy: async (id) => (await queue.needing(id))[0],
  });
  const source = given ?? { open: (id: string) => datasets.openDataset(id, { param: "dataset" }) };
  const scratch = await openScratch(path.join(config.dataDir, "tmp"), { exclusive });
  onClose(() => scratch.remove());
  const training = trainingDeps({
    config,
    models,
    engine,
    queue,
    datasets: source,
    artifacts: artifactsDir,
    scratch: scratch.directory,
  });
  const startRunner = () =>
    createJobRunner({
      queue,
      handlers: {
        ...trainingHandlers(training),
        ...distillationHandlers({ models, queue, datasets, store, artifacts, training }),
        ...evaluationHandlers({ models, datasets: source, artifacts: artifactsDir }),
      },
      workerId: `${hostname()} ${process.pid}`,
      log,
      now: () => performance.now(),
      exclusive,
      ...lease,
    });
  if (role === "worker") {
    const runner = startRunner();
    onClose(() => runner.stop());
    log.info({ database: database.kind, threads: config.threads }, `Preceptor ${VERSION} works on jobs`);
    return { url: "", close: closeAll };
  }
  const texts = withTextsOfRemotes(models, preparation);
  const explanations = createExplanationService({
    registry: texts,
    store: createExplanationStore(database.db, now),
    now,
    random: Math.random,
    log,
  });
  onClose(() => explanations.close());
  await registerFound({ models, modelsDirs: config.modelsDirs, log: early });
  onClose(await settleInterrupted(explanations, { exclusive, log }));

  const trainingSessions = createTrainingSessionService({
    models,
    engine,
    placement,
    checkpoints: createCheckpointStore(checkpointsDir, queue.addLooseCheckpoint),
    directory: scratch.directory,
    budgetBytes: config.modelMemoryBytes,
    now,
    random: Math.random,
  });
  onClose(() => trainingSessions.close());
  onClose(sweepSessions(trainingSessions, log));
  const idempotency = createIdempotencyStore(database.db);
  onClose(await sweepKeys(idempotency, { exclusive, log }));
  const lifecycle = createLifecycle();
  metrics.gauge("preceptor_background_waiting", "Explanations in the background that wait for a place", () =>
    explanations.waiting(),
  );
  gaugeJobs(metrics, queue);
  const checking = { models, datasets: source, allowedHosts: config.allowedHosts, random: Math.random };
  const distillations = createDistillationService({ ...checking, queue, opener: datasets, artifacts: artifactsDir });
  const app = createApp({
    routes: [
      ...apiRoutes({
        models: texts,
        explanations,
        scores: createScoreService({ registry: models }),
        trainingSessions,
        jobs: createTrainingJobService({ ...checking, queue }),
        evaluations: createEvaluationService({ ...checking, queue, artifacts: artifactsDir }),
        previews: createPreviewService({ ...checking, registry: models, fetch }),
        estimates: createEstimateService({ ...checking, queue, threads: config.threads }),
        checkpoints: createCheckpointService({
          queue,
          directory: checkpointsDir,
          usedBy: models.madeOf,
          bases: models,
        }),
        datasets,
        distillations,
        reports: createReportService({
          ...{ datasets, queue, now },
          findJob: distillations.find,
          artifacts: artifactsDir,
          version: VERSION,
        }),
        now: Date.now,
        random: Math.random,
      }),
      webRoutes({ version: VERSION, secured: config.apiKey !== undefined, listModels: () => models.overview() }),
    ],
    authenticate: config.apiKey === undefined ? null : createKeyAuthenticator(config.apiKey),
    version: VERSION,
    log,
    lifecycle,
    metrics,
    checks: { database: () => database.ping() },
    corsOrigins: config.http.corsOrigins,
    maxBodyBytes: config.http.maxBodyBytes,
    metricsOpenOnLoopback: config.http.metricsOpenOnLoopback,
    idempotency,
  });
  const server = await startServer(app, { host: config.host, port: config.port, lifecycle });
  const runner = role === "all" ? startRunner() : null;
  // Both at once: a job that comes to a halt must not wait for the end of a long answer, nor the other way round.
  onClose(async () => {
    await Promise.all([server.close(config.http.shutdownGraceMs), runner?.stop()]);
  });
  log.info(
    { database: database.kind, models_dirs: config.modelsDirs, threads: config.threads },
    `Preceptor ${VERSION} listens on ${server.url}${config.apiKey === undefined ? " (no API key: this machine only)" : ""}`,
  );
  return { url: server.url, close: closeAll };
}

/** A session that nobody calls is gone within a minute of its hour. */
const SWEEP_INTERVAL_MS = 60_000;

/** Ends idle training sessions; the result ends the looking. */
function sweepSessions(sessions: TrainingSessionService, log: Logger): () => Promise<void> {
  const timer = setInterval(() => {
    sessions.sweep().catch((error: unknown) => log.error({ err: error }, "ending idle training sessions failed"));
  }, SWEEP_INTERVAL_MS).unref();
  return async () => clearInterval(timer);
}

/** Keys live for a day; an hour more costs a little space. */
const SWEEP_KEYS_INTERVAL_MS = 3_600_000;

/** Forgets idempotency keys that are too old; resolves to what ends the looking. */
async function sweepKeys(
  store: IdempotencyStore,
  { exclusive, log }: { exclusive: boolean; log: Logger },
): Promise<() => Promise<void>> {
  await store.sweep({ exclusive });
  const timer = setInterval(() => {
    store
      .sweep({ exclusive: false })
      .catch((error: unknown) => log.error({ err: error }, "forgetting old idempotency keys failed"));
  }, SWEEP_KEYS_INTERVAL_MS).unref();
  return async () => clearInterval(timer);
}

/** Where servers share a database, one that is gone shows only after minutes of silence: the others look every so often. */
const SETTLE_INTERVAL_MS = 60_000;

/** Settles explanations that a stopped server left behind; resolves to what ends the looking. */
async function settleInterrupted(
  explanations: ExplanationService,
  { exclusive, log }: { exclusive: boolean; log: Logger },
): Promise<() => Promise<void>> {
  await explanations.settleInterrupted({ exclusive });
  if (exclusive) return async () => undefined;
  const timer = setInterval(() => {
    explanations
      .settleInterrupted({ exclusive })
      .catch((error: unknown) => log.error({ err: error }, "settling interrupted explanations failed"));
  }, SETTLE_INTERVAL_MS).unref();
  return async () => clearInterval(timer);
}
