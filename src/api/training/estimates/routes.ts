import { createRoute } from "@hono/zod-openapi";
import { requireScope } from "../../../http/auth.ts";
import type { RouteModule } from "../../../http/context.ts";
import { jsonBody, jsonResponse } from "../../../http/schemas.ts";
import { createTrainingJobSchema } from "../jobs/request-schemas.ts";
import { estimateSchema } from "./schemas.ts";
import type { EstimateService } from "./service.ts";

const estimate = createRoute({
  method: "post",
  path: "/v1/estimates",
  tags: ["Training jobs"],
  middleware: [requireScope("train")],
  summary: "What a training job will cost",
  description:
    "Takes the body of a job and refuses what the job would be refused for. The rate is that of the newest job of the same kind " +
    "on the same model, or an assumption that is named.",
  request: { body: jsonBody(createTrainingJobSchema) },
  responses: { 200: jsonResponse(estimateSchema, "Tokens, seconds, memory and disk") },
});

export const estimateRoutes =
  ({ estimates }: { estimates: EstimateService }): RouteModule =>
  (app) => {
    app.openapi(estimate, async (c) => c.json(await estimates.estimate(c.req.valid("json")), 200));
  };
