/** What compose.ts needs for evaluations: their handler. */
import { weightsHashOf } from "./api/evaluations/check.ts";
import type { ModelService } from "./api/models/service.ts";
import { patiently } from "./api/patience.ts";
import { createModelUse } from "./api/training/use.ts";
import { EVALUATION, type EvaluationDeps, runEvaluation } from "./evaluate/handler.ts";
import type { JobHandler } from "./jobs/run-job.ts";
import type { DatasetSource } from "./train/datasets.ts";

export interface EvaluationParts {
  models: ModelService;
  datasets: DatasetSource;
  artifacts: string;
}

export function evaluationHandlers({ models, datasets, artifacts }: EvaluationParts): Record<string, JobHandler> {
  const asked = { role: "student", param: "student" } as const;
  const deps: EvaluationDeps = {
    serve: createModelUse(models).answer,
    weightsHash: async (student) => weightsHashOf((await models.prepare(student, asked)).prepared),
    dataset: (id) => datasets.open(id),
    patiently,
    artifacts,
    now: () => performance.now(),
  };
  return { [EVALUATION]: (context) => runEvaluation(deps, context) };
}
