import type { RouteModule } from "../http/context.ts";
import { checkpointRoutes } from "./checkpoints/routes.ts";
import type { CheckpointService } from "./checkpoints/service.ts";
import { datasetRoutes } from "./datasets/routes.ts";
import type { DatasetService } from "./datasets/service.ts";
import { distillationRoutes } from "./distillation/routes.ts";
import type { DistillationService } from "./distillation/service.ts";
import { evaluationRoutes } from "./evaluations/routes.ts";
import type { EvaluationService } from "./evaluations/service.ts";
import { explanationRoutes } from "./explanations/routes.ts";
import type { ExplanationService } from "./explanations/service.ts";
import { modelRoutes } from "./models/routes.ts";
import type { ModelService } from "./models/service.ts";
import { createOpenaiApi } from "./openai/compose.ts";
import { reportRoutes } from "./reports/routes.ts";
import type { ReportService } from "./reports/service.ts";
import { scoreRoutes } from "./scores/routes.ts";
import type { ScoreService } from "./scores/service.ts";
import { estimateRoutes } from "./training/estimates/routes.ts";
import type { EstimateService } from "./training/estimates/service.ts";
import { trainingJobRoutes } from "./training/jobs/routes.ts";
import type { TrainingJobService } from "./training/jobs/service.ts";
import { previewRoutes } from "./training/preview/routes.ts";
import type { PreviewService } from "./training/preview/service.ts";
import { trainingSessionRoutes } from "./training/sessions/routes.ts";
import type { TrainingSessionService } from "./training/sessions/service.ts";

export interface Services {
  models: ModelService;
  explanations: ExplanationService;
  scores: ScoreService;
  trainingSessions: TrainingSessionService;
  jobs: TrainingJobService;
  evaluations: EvaluationService;
  previews: PreviewService;
  estimates: EstimateService;
  checkpoints: CheckpointService;
  datasets: DatasetService;
  distillations: DistillationService;
  reports: ReportService;
  /** Milliseconds. */
  now: () => number;
  /** A number in [0, 1). */
  random: () => number;
}

/** Every resource, in the order in which the document lists them. */
export function apiRoutes(services: Services): RouteModule[] {
  const { models, explanations, scores, trainingSessions, jobs, previews, estimates, checkpoints, datasets } = services;
  const { distillations, evaluations, reports, now, random } = services;
  return [
    modelRoutes({ models }),
    explanationRoutes({ explanations }),
    scoreRoutes({ scores }),
    trainingSessionRoutes({ sessions: trainingSessions }),
    trainingJobRoutes({ jobs, checkpoints }),
    evaluationRoutes({ evaluations }),
    previewRoutes({ previews }),
    estimateRoutes({ estimates }),
    checkpointRoutes({ checkpoints }),
    datasetRoutes({ datasets }),
    distillationRoutes({ distillations }),
    reportRoutes({ reports }),
    createOpenaiApi({ registry: models, now, random }),
  ];
}
