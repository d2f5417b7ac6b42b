import type { RouteModule } from "../http/context.ts";
import { explanationRoutes } from "./explanations/routes.ts";
import type { ExplanationService } from "./explanations/service.ts";
import { modelRoutes } from "./models/routes.ts";
import type { ModelService } from "./models/service.ts";
import { createOpenaiApi } from "./openai/compose.ts";
import { scoreRoutes } from "./scores/routes.ts";
import type { ScoreService } from "./scores/service.ts";
import { trainingSessionRoutes } from "./training/sessions/routes.ts";
import type { TrainingSessionService } from "./training/sessions/service.ts";

export interface Services {
  models: ModelService;
  explanations: ExplanationService;
  scores: ScoreService;
  trainingSessions: TrainingSessionService;
  /** Milliseconds. */
  now: () => number;
  /** A number in [0, 1). */
  random: () => number;
}

/** Every resource, in the order in which the document lists them. */
export function apiRoutes({ models, explanations, scores, trainingSessions, now, random }: Services): RouteModule[] {
  return [
    modelRoutes({ models }),
    explanationRoutes({ explanations }),
    scoreRoutes({ scores }),
    trainingSessionRoutes({ sessions: trainingSessions }),
    createOpenaiApi({ registry: models, now, random }),
  ];
}
