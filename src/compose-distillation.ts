/** What compose.ts needs for distillation jobs. */
import { DISTILLATION } from "./api/distillation/service.ts";
import type { ModelService } from "./api/models/service.ts";
import { patiently } from "./api/patience.ts";
import { createModelUse } from "./api/training/use.ts";
import type { ArtifactStore } from "./artifacts/store.ts";
import { keepDataset } from "./datasets/keep.ts";
import type { DatasetOpener } from "./datasets/open.ts";
import type { DatasetStore } from "./db/dataset-store.ts";
import { runDistillation } from "./distill/handler.ts";
import type { DistillDeps } from "./distill/job-deps.ts";
import { rowsOf } from "./evaluate/config.ts";
import type { JobQueue } from "./jobs/queue.ts";
import type { JobHandler } from "./jobs/run-job.ts";
import type { TrainingDeps } from "./train/job-deps.ts";

export interface DistillationParts {
  models: ModelService;
  queue: JobQueue;
  datasets: DatasetOpener;
  store: DatasetStore;
  artifacts: ArtifactStore;
  training: TrainingDeps;
}

export function distillationHandlers(parts: DistillationParts): Record<string, JobHandler> {
  const { models, queue, datasets, store, artifacts, training } = parts;
  const { teach, serve, answer } = createModelUse(models);
  const open = (id: string) => datasets.openDataset(id, { param: "dataset" });
  const deps: DistillDeps = {
    teach,
    serve,
    answer,
    patiently,
    dataset: open,
    async evaluated(asked) {
      const dataset = await open(asked.dataset);
      return { rows: await rowsOf(dataset, asked), row: dataset.row };
    },
    keep: keepDataset({ store, artifacts }),
    queue,
    training,
    artifacts: training.artifacts,
  };
  return { [DISTILLATION]: (context) => runDistillation(deps, context) };
}
