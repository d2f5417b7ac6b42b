import { datasets } from "./datasets.ts";
import { explanations } from "./explanations.ts";
import { idempotencyKeys } from "./idempotency.ts";
import { checkpoints, jobEvents, jobMetrics, jobs } from "./jobs.ts";
import { models, modelVersions } from "./models.ts";

/** All tables, as Drizzle's type parameter wants them. */
export const schema = {
  models,
  modelVersions,
  explanations,
  jobs,
  jobEvents,
  jobMetrics,
  checkpoints,
  datasets,
  idempotencyKeys,
};
