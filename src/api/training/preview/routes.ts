import { createRoute } from "@hono/zod-openapi";
import { requireScope } from "../../../http/auth.ts";
import { callerOf } from "../../../http/client.ts";
import type { RouteModule } from "../../../http/context.ts";
import { jsonBody, jsonResponse } from "../../../http/schemas.ts";
import { previewRequestSchema, previewSchema } from "./schemas.ts";
import type { PreviewService } from "./service.ts";

const preview = createRoute({
  method: "post",
  path: "/v1/rewards/preview",
  tags: ["Training jobs"],
  middleware: [requireScope("train")],
  summary: "Look at a job's rewards before paying for it",
  description:
    "Draws explanations of a few rows and scores them as a step of rlt does: the spread within each group, and how many groups " +
    "would teach nothing because all their rewards are equal.",
  request: { body: jsonBody(previewRequestSchema) },
  responses: { 200: jsonResponse(previewSchema, "Explanations with their rewards") },
});

export const previewRoutes =
  ({ previews }: { previews: PreviewService }): RouteModule =>
  (app) => {
    app.openapi(preview, async (c) => c.json(await previews.preview(c.req.valid("json"), callerOf(c)), 200));
  };
