/** What compose.ts needs for jobs: their handlers, where they put their files, and how many there are. */
import path from "node:path";
import type { ModelService } from "./api/models/service.ts";
import { KINDS } from "./api/training/jobs/resource.ts";
import { createModelUse } from "./api/training/use.ts";
import type { Config } from "./config.ts";
import type { Engine } from "./engine/engine.ts";
import type { Metrics } from "./http/metrics.ts";
import type { JobQueue } from "./jobs/queue.ts";
import type { JobHandler } from "./jobs/run-job.ts";
import type { DatasetSource } from "./train/datasets.ts";
import { runTraining } from "./train/handler.ts";
import type { TrainingDeps } from "./train/job-deps.ts";

export interface TrainingParts {
  config: Config;
  models: ModelService;
  engine: Engine;
  queue: JobQueue;
  datasets: DatasetSource;
  artifacts: string;
  /** A folder of this process, which goes with it. */
  scratch: string;
}

export function trainingDeps({
  config,
  models,
  engine,
  queue,
  datasets,
  artifacts,
  scratch,
}: TrainingParts): TrainingDeps {
  return {
    engine,
    ...createModelUse(models),
    dataset: (id) => datasets.open(id),
    queue,
    publish: ({ config: { model, role, suffix }, checkpoint }) => models.publish({ model, role, suffix, checkpoint }),
    artifacts,
    scratch: path.join(scratch, "jobs"),
    allowedHosts: config.allowedHosts,
    fetch,
    clock: { now: () => performance.now() },
  };
}

export function trainingHandlers(deps: TrainingDeps): Record<string, JobHandler> {
  const train: JobHandler = (context) => runTraining(deps, context);
  return Object.fromEntries(Object.values(KINDS).map((kind) => [kind, train]));
}

export function gaugeJobs(metrics: Metrics, queue: Pick<JobQueue, "counts">): void {
  metrics.gauges("preceptor_jobs", "Jobs by kind and status", ["kind", "status"], async () => {
    // A scrape shows everything else while the database is away.
    const found = await queue.counts().catch(() => []);
    return found.map(({ kind, status, count }) => ({ labels: { kind, status }, value: count }));
  });
}
